"""The command ``onnxcomp``."""

from __future__ import annotations

import sys

import click

from onnxcomp.cli.looking import (
    bench_command,
    inspect_command,
    passes_command,
    schema_command,
    validate_command,
    version_option,
)
from onnxcomp.cli.writing import pass_command, run_command
from onnxcomp.errors import OnnxcompError
from onnxcomp.pipeline import available_passes


def command() -> click.Group:
    """Return the group of all commands, those of third-party passes included."""
    group = click.Group(
        "onnxcomp",
        params=[version_option()],
        help="Make ONNX models several times smaller or faster, and see what it cost.",
        epilog="Example: onnxcomp cluster model.onnx -o small.onnx --bits 4 --data samples.npz",
    )
    for made in (
        inspect_command(),
        *(pass_command(cls) for cls in available_passes().values()),
        run_command(),
        validate_command(),
        bench_command(),
        passes_command(),
        schema_command(),
    ):
        group.add_command(made)
    return group


def main() -> None:
    """Run the command line; an error of ours is one line on stderr and its exit code."""
    try:
        command()()
    except OnnxcompError as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(error.exit_code)
