"""Commands that write nothing: look at a model, compare two, list passes."""

from __future__ import annotations

import json
from pathlib import Path  # noqa: TC003 - click asks for it at run time
from typing import TYPE_CHECKING, Any

import click
from rich.table import Table

from onnxcomp.api import Settings, compare, recipe_of
from onnxcomp.cli.console import progress_bars, show
from onnxcomp.cli.options import (
    data_option,
    json_option,
    model_argument,
    options_of,
    report_option,
    taken,
)
from onnxcomp.cli.targets import check_targets
from onnxcomp.errors import FloorError, ModelError
from onnxcomp.graph import load_model
from onnxcomp.pipeline import available_passes, recipe_schema
from onnxcomp.report import inspect_model, inspection_table, report_table, save_report

if TYPE_CHECKING:
    from collections.abc import Callable

RUN_OPTIONS = ("samples", "provider", "threads", "seed")
FLOOR_OPTIONS = ("evaluate", "max_drop", "min_snr")


def inspect_command() -> click.Command:
    """Return the command that shows what a model holds."""

    def run(model: Path, *, as_json: bool) -> None:
        """Show a model's inputs, weights and stores, and what could be compressed."""
        inspection = inspect_model(load_model(model))
        if as_json:
            click.echo(inspection.to_json())
        else:
            show(inspection_table(inspection), is_result=True)

    return click.Command(
        "inspect",
        params=[model_argument("model"), json_option()],
        callback=run,
        help=run.__doc__,
        epilog="Example: onnxcomp inspect model.onnx",
    )


def validate_command() -> click.Command:
    """Return the command that compares the outputs of two models."""

    def run(**given: Any) -> None:
        """Compare the outputs of OTHER with those of ORIGINAL, provider by provider.

        Exits 1 where OTHER does not load, gives other shapes, is not finite or is miscompiled, and
        3 where it misses a floor.
        """
        settings = Settings.model_validate({**taken(Settings, given), "bench": False})
        _compare(settings, given)

    return _comparing("validate", run, (*RUN_OPTIONS, *FLOOR_OPTIONS))


def bench_command() -> click.Command:
    """Return the command that times two models side by side."""

    def run(**given: Any) -> None:
        """Time OTHER against ORIGINAL in one process: ratios, with a control; less is better."""
        settings = Settings.model_validate({**taken(Settings, given), "validation": False})
        _compare(settings, given)

    return _comparing("bench", run, (*RUN_OPTIONS, "bench_seconds"))


def _comparing(name: str, run: Callable[..., None], settings: tuple[str, ...]) -> click.Command:
    """Return a command on two models that takes some of the fields of `Settings`."""
    return click.Command(
        name,
        params=[
            model_argument("original"),
            model_argument("other"),
            data_option(),
            *options_of(Settings, settings),
            json_option(),
            report_option(),
        ],
        callback=run,
        help=run.__doc__,
        epilog=f"Example: onnxcomp {name} model.onnx small.onnx --data samples.npz",
    )


def _compare(settings: Settings, given: dict[str, Any]) -> None:
    check_targets(given)
    with progress_bars(quiet=given["as_json"]) as tell:
        report = compare(
            given["original"], given["other"], data=given["data"], settings=settings, progress=tell
        )
    if given["report"] is not None:
        save_report(report, given["report"])
    if given["as_json"]:
        click.echo(report.to_json())
    else:
        show(report_table(report), is_result=True)
    problem = next((each.problem for each in report.validation if each.problem), None)
    if problem is not None:
        raise ModelError(f"{given['other']}: {problem}")
    if report.missed is not None:
        raise FloorError(report.missed)


def passes_command() -> click.Command:
    """Return the command that lists the passes."""

    def run() -> None:
        """List the installed passes in the order in which a pipeline should have them."""
        table = Table("pass", "stage", "what it does", "from")
        for name, cls in available_passes().items():
            summary = (cls.__doc__ or "").strip().partition("\n")[0]
            table.add_row(name, cls.stage.name.lower().replace("_", " "), summary, cls.__module__)
        show(table, is_result=True)

    return click.Command(
        "passes", callback=run, help=run.__doc__, epilog="Example: onnxcomp passes"
    )


def recipe_command() -> click.Command:
    """Return the command that prints how a file was made."""

    def run(model: Path) -> None:
        """Print the recipe that a file of onnxcomp carries.

        ``onnxcomp run`` makes the same bytes of the same source and samples by it; what was
        decided by measuring is in it as decided. A search kept samples from the passes: give
        ``run`` --hold-out and its --calibration, 64 unless told otherwise.
        """
        click.echo(json.dumps(recipe_of(model), indent=2))

    return click.Command(
        "recipe",
        params=[model_argument("model")],
        callback=run,
        help=(run.__doc__ or "").replace("``", ""),
        epilog="Example: onnxcomp recipe small.onnx > recipe.json",
    )


def schema_command() -> click.Command:
    """Return the command that prints the schema of recipes."""

    def run() -> None:
        """Print the JSON schema of recipes over the installed passes."""
        click.echo(json.dumps(recipe_schema(), indent=2))

    return click.Command(
        "schema", callback=run, help=run.__doc__, epilog="Example: onnxcomp schema > recipe.json"
    )
