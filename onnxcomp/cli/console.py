"""What is shown where: results on stdout, everything else on stderr."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.text import Text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rich.console import RenderableType

    from onnxcomp.api import Progress as Told

PLAIN_WIDTH = 120
"""Characters a line where the output is no terminal."""


def show(renderable: RenderableType, *, is_result: bool) -> None:
    """Print a table: to stdout if it is what was asked for, else to stderr."""
    stream = sys.stdout if is_result else sys.stderr
    width = None if stream.isatty() else PLAIN_WIDTH
    # A line of text is one line, however long.
    Console(file=stream, width=width).print(renderable, soft_wrap=isinstance(renderable, Text))


@contextmanager
def live_line(*, quiet: bool) -> Iterator[Callable[[str], None]]:
    """Yield a function that says what is being done, for how long, in a last line on a terminal.

    Whatever else goes to stderr meanwhile goes above that line.
    """
    console = Console(file=sys.stderr)
    if quiet or not console.is_terminal:
        yield lambda _: None
        return
    from rich.progress import (  # noqa: PLC0415 - slow to import
        Progress,
        SpinnerColumn,
        TextColumn,
        TimeElapsedColumn,
    )

    columns = SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn()
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("beginning", total=None)

        def begun(what: str) -> None:
            progress.reset(task, description=escape(what))

        yield begun


@contextmanager
def progress_bars(*, quiet: bool) -> Iterator[Told]:
    """Yield a function that shows progress on stderr, where that is a terminal."""
    console = Console(file=sys.stderr)
    if quiet or not console.is_terminal:
        yield lambda _what, _share: None
        return
    from rich.progress import Progress, TaskID  # noqa: PLC0415 - slow to import

    bars: dict[str, TaskID] = {}
    with Progress(console=console, transient=True) as progress:

        def tell(what: str, share: float) -> None:
            if what not in bars:
                bars[what] = progress.add_task(what, total=1.0)
            progress.update(bars[what], completed=share)

        yield tell
