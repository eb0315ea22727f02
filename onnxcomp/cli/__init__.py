"""The command line: every pass a command, made from the pass's own fields."""

from onnxcomp.cli.main import main

__all__ = ["main"]
