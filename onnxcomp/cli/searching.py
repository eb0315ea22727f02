"""Commands that find pipelines by themselves: the best one, or all that are worth it."""

from __future__ import annotations

import signal
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
from rich.text import Text

from onnxcomp.api import Limits, Settings
from onnxcomp.cli.console import live_line, show
from onnxcomp.cli.options import (
    data_option,
    json_option,
    model_argument,
    options_of,
    output_option,
    report_option,
    taken,
)
from onnxcomp.cli.targets import check_targets, check_writable, force_option
from onnxcomp.cli.writing import quiet_option, say
from onnxcomp.errors import FloorError, OptionError
from onnxcomp.pipeline import recipe_text
from onnxcomp.report import Report, trial_line
from onnxcomp.search import Aim, Listener, search_front, search_pipeline, target_file

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType

    from rich.console import RenderableType

SEARCHED = (
    "evaluate",
    "max_drop",
    "min_snr",
    "samples",
    "calibration",
    "compared",
    "provider",
    "threads",
    "seed",
)
"""Fields of `Settings` that a search leaves to its caller."""

Result = TypeVar("Result")


def compress_command() -> click.Command:
    """Return the command that searches for the best pipeline."""

    def run(**given: Any) -> None:
        """Find the passes that make a model as small or as fast as a floor allows, and apply them.

        Pipelines are tried until the time is up; what was finished is kept in a cache, from which
        the next search goes on. The metric may drop by 1 % unless told otherwise; without one,
        each output has a floor by what it holds, on samples that no pass sees. Without --data
        accuracy is not checked, and only what is safe is applied. Interrupted or terminated, it
        writes the best so far. Exits 3, and writes nothing, where nothing is better.
        """
        found = _searched(search_pipeline, given, given)
        say(found.save(given["output"]), given)

    return click.Command(
        "compress",
        params=[
            model_argument("model"),
            output_option("Where the model goes; the old file stays until the new one is whole."),
            force_option(),
            *_common(),
        ],
        callback=run,
        help=run.__doc__,
        epilog="Example: onnxcomp compress model.onnx -o small.onnx --data samples.npz",
    )


def search_command() -> click.Command:
    """Return the command that searches for all pipelines that are worth it."""

    def run(**given: Any) -> None:
        """Find the models of which none is better in bytes, latency and accuracy at once.

        Each is written to the folder as NUMBER.onnx, with the recipe that made it as NUMBER.toml.
        Every goal is climbed to, also at a stricter and a looser floor; the report is about the
        best for --goal. Otherwise as 'onnxcomp compress'.
        """
        folder: Path = given["output"]
        check_writable(folder / "model.onnx" if folder.is_dir() else folder)
        if any([*folder.glob("*.onnx"), *folder.glob("*.toml")]):
            raise OptionError(
                f"folder {str(folder)!r} holds models or recipes already; give another"
            )
        front = _searched(search_front, given, {**given, "output": None})
        written = front.save(folder)
        say(front.best.report, given)
        if not given["as_json"]:
            click.echo("\n".join(map(str, written)))

    return click.Command(
        "search",
        params=[
            model_argument("model"),
            click.Option(
                ["-o", "--output"],
                type=click.Path(path_type=Path, file_okay=False),
                required=True,
                help="Folder for the models and recipes; made if it is not there.",
            ),
            *_common(),
        ],
        callback=run,
        help=run.__doc__,
        epilog="Example: onnxcomp search model.onnx -o front --data samples.npz",
    )


def _common() -> list[click.Parameter]:
    return [
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
    ]


def _show_recipe(context: click.Context, _: click.Parameter, target: str | None) -> None:
    if target is not None:
        click.echo(recipe_text(target_file(target)), nl=False)
        context.exit()


def _searched(
    search: Callable[..., Result], given: dict[str, Any], checked: dict[str, Any]
) -> Result:
    """Search with the options that were given; show each trial when it is finished.

    Args:
        search: The search.
        given: The parameters of the command.
        checked: Those whose targets are looked at.
    """
    check_targets(checked)
    is_quiet = given["quiet"]

    def said(line: RenderableType) -> None:
        if not is_quiet:
            show(line, is_result=False)

    try:
        with terminating(), live_line(quiet=is_quiet) as begun:
            return search(
                given["model"],
                data=given["data"],
                aim=Aim.model_validate(taken(Aim, given)),
                settings=Settings.model_validate(taken(Settings, given)),
                limits=Limits.model_validate(taken(Limits, given)),
                listener=Listener(
                    told=lambda trial: said(trial_line(trial)),
                    noted=lambda text: said(Text(text)),
                    begun=begun,
                ),
            )
    except FloorError as error:
        if isinstance(error.compressed, Report):
            say(error.compressed, given)
        raise


@contextmanager
def terminating() -> Iterator[None]:
    """Let SIGTERM do what an interrupt from the keyboard does: end with the best so far."""

    def interrupt(_signal: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
