"""The command that finds the pipeline by itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from onnxcomp.api import Limits, Settings
from onnxcomp.cli.console import show
from onnxcomp.cli.options import (
    data_option,
    json_option,
    model_argument,
    options_of,
    output_option,
    report_option,
    taken,
)
from onnxcomp.cli.writing import check_folder, check_report_path, quiet_option, say
from onnxcomp.report import trial_line
from onnxcomp.search import Aim, search, target_file

if TYPE_CHECKING:
    from pathlib import Path

    from onnxcomp.report import Trial

SEARCHED = ("evaluate", "max_drop", "min_snr", "samples", "provider", "threads", "seed")
"""Fields of `Settings` that a search leaves to its caller."""


def compress_command() -> click.Command:
    """Return the command that searches for the best pipeline."""

    def run(**given: Any) -> None:
        """Find the passes that make a model as small or as fast as a floor allows, and apply them.

        Pipelines are tried until the time is up; what was finished is kept in a cache, from which
        the next search goes on. The floor is on samples that no pass sees: the metric, or without
        one the rows of the outputs that agree, may drop by 1 % unless told otherwise. Interrupted,
        it writes the best so far. Exits 3, and writes nothing, where nothing is better.
        """
        aim = Aim.model_validate(taken(Aim, given))
        settings = Settings.model_validate(taken(Settings, given))
        limits = Limits.model_validate(taken(Limits, given))
        output: Path = given["output"]
        check_folder(output)
        check_report_path(given["report"])

        def told(trial: Trial) -> None:
            if not given["quiet"]:
                show(trial_line(trial), is_result=False)

        found = search(
            given["model"],
            data=given["data"],
            aim=aim,
            settings=settings,
            limits=limits,
            told=told,
        )
        say(found.save(output), given)

    return click.Command(
        "compress",
        params=[
            model_argument("model"),
            output_option("Where the model goes; the old file stays until the new one is whole."),
            data_option(),
            *options_of(Aim),
            *options_of(Limits, ("min_size_ratio",)),
            *options_of(Settings, SEARCHED),
            click.Option(
                ["--show-recipe"],
                metavar="TARGET",
                is_eager=True,
                expose_value=False,
                callback=_show_recipe,
                help="Print a preset, to be edited and given as --target; then exit.",
            ),
            json_option(),
            report_option(),
            quiet_option(),
        ],
        callback=run,
        help=run.__doc__,
        epilog="Example: onnxcomp compress model.onnx -o small.onnx --data samples.npz",
    )


def _show_recipe(context: click.Context, _: click.Parameter, target: str | None) -> None:
    if target is not None:
        click.echo(target_file(target).read_text(encoding="utf-8"), nl=False)
        context.exit()
