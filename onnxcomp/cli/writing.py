"""Commands that write a model: one for each pass, and ``run`` for a recipe."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from onnxcomp.api import Compressed, Settings, compress
from onnxcomp.cli.console import progress_bars, show
from onnxcomp.cli.options import (
    data_option,
    json_option,
    model_argument,
    options_of,
    output_option,
    report_option,
    statistics_option,
    taken,
)
from onnxcomp.cli.targets import check_targets, force_option
from onnxcomp.errors import FloorError, OptionError
from onnxcomp.pipeline import Pass, read_recipe
from onnxcomp.report import report_table, save_report

if TYPE_CHECKING:
    from collections.abc import Sequence

    from onnxcomp.report import Report

SELECTION = ("include", "exclude")
"""Fields of every pass."""


def _common() -> list[click.Parameter]:
    return [
        output_option("Where the model goes; the old file stays until the new one is whole."),
        data_option(),
        statistics_option(),
        *options_of(Settings),
        force_option(),
        json_option(),
        report_option(),
        quiet_option(),
    ]


def pass_command(cls: type[Pass]) -> click.Command:
    """Return the command of a pass."""

    def run(**given: Any) -> None:
        write((cls.model_validate(taken(cls, given)),), given)

    own, common = options_of(cls), _common()
    clashes = {each.name for each in own} & {each.name for each in common}
    if clashes:
        names = ", ".join(sorted(map(str, clashes)))
        raise OptionError(f"pass {cls.name!r} has options that all commands have: {names}")
    return click.Command(
        cls.name,
        params=[model_argument("model"), *own, *common],
        callback=run,
        help=(cls.__doc__ or "").replace("``", ""),
        epilog=f"Example: onnxcomp {cls.name} model.onnx -o small.onnx --data samples.npz",
    )


def run_command() -> click.Command:
    """Return the command that runs a recipe."""

    def run(recipe: Path, **given: Any) -> None:
        """Run a recipe: a pipeline of passes from a .toml or .json file.

        ``onnxcomp schema`` prints what a recipe may hold.
        """
        include, exclude = (given.pop(name) for name in SELECTION)
        passes = tuple(_narrowed(each, include, exclude) for each in read_recipe(recipe))
        write(passes, {**given, "recipe": recipe})

    return click.Command(
        "run",
        params=[
            click.Argument(["recipe"], type=click.Path(path_type=Path), metavar="RECIPE"),
            model_argument("model"),
            *options_of(Pass, SELECTION),
            *_common(),
        ],
        callback=run,
        help=run.__doc__,
        epilog="Example: onnxcomp run recipe.toml model.onnx -o small.onnx --data samples.npz",
    )


def _narrowed(one: Pass, include: tuple[str, ...], exclude: tuple[str, ...]) -> Pass:
    """Return a pass of a recipe that leaves out what the command line leaves out as well."""
    if include and one.include:
        raise OptionError(f"--include: {one.name} has an include in the recipe; change it there")
    update = {"include": include or one.include, "exclude": one.exclude + exclude}
    return one.model_copy(update=update)


def write(passes: Sequence[Pass], given: dict[str, Any]) -> None:
    """Run passes, write the result, and say what was done."""
    check_targets({**given, "read": tuple(path for each in passes for path in each.reads)})
    settings = Settings.model_validate(taken(Settings, given))
    try:
        with progress_bars(quiet=given["quiet"]) as tell:
            compressed = compress(
                given["model"],
                passes,
                data=given["data"],
                statistics=given["statistics"],
                settings=settings,
                progress=tell,
            )
    except FloorError as error:
        if isinstance(error.compressed, Compressed):
            say(error.compressed.report, given)
        raise
    say(compressed.save(given["output"]), given)


def quiet_option() -> click.Option:
    """Return ``--quiet``, common to all commands that write a model."""
    return click.Option(["--quiet"], is_flag=True, help="Print neither tables nor progress.")


def say(report: Report, given: dict[str, Any]) -> None:
    """Say what was done: tables on stderr; where the file is, or all of it as JSON, on stdout."""
    if given["report"] is not None:
        save_report(report, given["report"])
    if not given["quiet"]:
        show(report_table(report), is_result=False)
    if given["as_json"]:
        click.echo(report.to_json())
    elif report.output.path is not None:
        click.echo(report.output.path)
