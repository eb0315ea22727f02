"""The command that ranks weights by what a pass costs the outputs when it changes one alone."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from onnxcomp.api import Settings, sensitivity
from onnxcomp.cli.console import progress_bars, show
from onnxcomp.cli.options import (
    data_option,
    json_option,
    model_argument,
    options_of,
    report_option,
)
from onnxcomp.cli.targets import check_targets
from onnxcomp.errors import OptionError
from onnxcomp.pipeline import parse_recipe, read_recipe
from onnxcomp.report import (
    ROWS,
    check_plot,
    save_report,
    save_sensitivity_plot,
    sensitivity_table,
)

if TYPE_CHECKING:
    from onnxcomp.pipeline import Pass

STANDARD = "quantize"


def sensitivity_command() -> click.Command:
    """Return the command that finds the culprit."""

    def run(model: Path, data: Path | None, *, as_json: bool, **given: Any) -> None:
        """Find the weights that a pass should leave alone, or treat with more care.

        Each weight is changed alone, and the outputs are compared with the original's, on one
        sample in five: those that no calibration looks at.
        """
        if data is None:
            raise OptionError("sensitivity needs --data: samples that the model is run on")
        one = _chosen(given.pop("name"), given["recipe"])
        check_targets({"model": model, "data": data, "read": one.reads, **given})
        top, plot, report, _ = (given.pop(name) for name in ("top", "plot", "report", "recipe"))
        if plot is not None:
            check_plot(plot)
        with progress_bars(quiet=as_json) as tell:
            found = sensitivity(model, one, data=data, progress=tell, **given)
        if plot is not None:
            save_sensitivity_plot(found, plot, top)
        if report is not None:
            save_report(found, report)
        if as_json:
            click.echo(found.to_json())
        else:
            show(sensitivity_table(found, top), is_result=True)

    return click.Command(
        "sensitivity",
        params=[
            model_argument("model"),
            data_option(),
            *_which_pass(),
            *options_of(Settings, ("samples", "threads", "seed")),
            click.Option(
                ["--provider"],
                default="cpu",
                show_default=True,
                help="Execution provider to measure on.",
            ),
            *_how_shown(),
            json_option(),
            report_option(),
        ],
        callback=run,
        help=run.__doc__,
        epilog="Example: onnxcomp sensitivity model.onnx --data samples.npz --plot ranking.svg",
    )


def _which_pass() -> list[click.Parameter]:
    return [
        click.Option(
            ["--pass", "name"],
            metavar="NAME",
            help=f"The pass, with the defaults of its options; {STANDARD} if not given.",
        ),
        click.Option(
            ["--recipe"],
            type=click.Path(path_type=Path),
            help="A recipe of exactly one pass, for other options; instead of --pass.",
        ),
    ]


def _how_shown() -> list[click.Parameter]:
    return [
        click.Option(
            ["--top"],
            type=click.IntRange(1),
            default=ROWS,
            show_default=True,
            help="Weights that the table and the plot show; JSON has all.",
        ),
        click.Option(
            ["--plot"],
            type=click.Path(path_type=Path, dir_okay=False),
            help="Draw the ranking: a .png or an .svg. Needs matplotlib: onnxcomp[plot].",
        ),
    ]


def _chosen(name: str | None, recipe: Path | None) -> Pass:
    """Return the one pass that is asked for.

    Raises:
        OptionError: There is no such pass, or not exactly one.
    """
    if recipe is None:
        return parse_recipe({"passes": [{"pass": name or STANDARD}]})[0]
    if name is not None:
        raise OptionError("--pass and --recipe exclude each other; give one")
    passes = read_recipe(recipe)
    if len(passes) != 1:
        raise OptionError(
            f"recipe {str(recipe)!r} has {len(passes)} passes; sensitivity takes exactly one"
        )
    return passes[0]
