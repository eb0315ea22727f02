"""The command line: every pass a command, made from the pass's own fields."""

import sys

__all__ = ["main"]

SEARCHES = ("compress", "search")
"""Commands that take long, so that a terminal hears of them before all is loaded."""

CLEARED = "\r\x1b[2K"
"""What takes a line of a terminal away."""


def main() -> None:
    """Run the command line."""
    is_shown = sys.stderr.isatty() and sys.argv[1:2] and sys.argv[1] in SEARCHES
    if is_shown:
        sys.stderr.write("onnxcomp: loading")
        sys.stderr.flush()
    from onnxcomp.cli.commands import run  # noqa: PLC0415 - takes a second or more

    if is_shown:
        sys.stderr.write(CLEARED)
        sys.stderr.flush()
    run()
