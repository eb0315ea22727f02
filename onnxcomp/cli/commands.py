"""The command ``onnxcomp``."""

from __future__ import annotations

import os
import sys
import traceback
from importlib.metadata import version

import click

from onnxcomp.cli.checking import check_command
from onnxcomp.cli.looking import (
    bench_command,
    inspect_command,
    passes_command,
    recipe_command,
    schema_command,
    validate_command,
)
from onnxcomp.cli.observing import statistics_command
from onnxcomp.cli.packing import pack_command, unpack_command
from onnxcomp.cli.ranking import sensitivity_command
from onnxcomp.cli.searching import compress_command, search_command
from onnxcomp.cli.writing import pass_command, run_command
from onnxcomp.errors import OnnxcompError, OptionError
from onnxcomp.pipeline import available_passes


def command() -> click.Group:
    """Return the group of all commands, those of third-party passes included."""
    group = click.Group(
        "onnxcomp",
        params=[_version_option(), _traceback_option()],
        help="Make ONNX models several times smaller or faster, and see what it cost.",
        epilog="Example: onnxcomp cluster model.onnx -o small.onnx --bits 4 --data samples.npz",
    )
    for made in (
        inspect_command(),
        compress_command(),
        search_command(),
        *(pass_command(cls) for cls in available_passes().values()),
        run_command(),
        statistics_command(),
        sensitivity_command(),
        validate_command(),
        bench_command(),
        check_command(),
        pack_command(),
        unpack_command(),
        passes_command(),
        recipe_command(),
        schema_command(),
    ):
        if made.name in group.commands:
            raise OptionError(f"pass {made.name!r} has the name of a command; it needs another")
        group.add_command(made)
    return group


DEBUG = "ONNXCOMP_DEBUG"
"""The environment variable that asks for tracebacks."""


def run() -> None:
    """Run the command line; an error of ours is one line on stderr and its exit code."""
    try:
        command()()
    except OnnxcompError as error:
        if os.environ.get(DEBUG):
            traceback.print_exc()
        click.echo(f"error: {error}", err=True)
        sys.exit(error.exit_code)


def _traceback_option() -> click.Option:
    """Return ``--traceback``, which holds for the processes that a search starts too."""
    return click.Option(
        ["--traceback"],
        is_flag=True,
        expose_value=False,
        is_eager=True,
        callback=lambda _context, _option, asked: asked and os.environ.update({DEBUG: "1"}),
        help=f"Print where an error comes from, before it; as {DEBUG}=1 does.",
    )


def _version_option() -> click.Option:
    """Return ``--version``."""
    return click.Option(
        ["--version"],
        is_flag=True,
        expose_value=False,
        is_eager=True,
        callback=_print_version,
        help="Show the version and exit.",
    )


def _print_version(context: click.Context, _: click.Parameter, asked: bool) -> None:
    if asked:
        click.echo(f"onnxcomp {version('onnxcomp')}")
        context.exit()
