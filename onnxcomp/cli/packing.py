"""Commands that pack a model for download, and unpack it."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003 - click asks for it at run time

import click

from onnxcomp.cli.console import progress_bars
from onnxcomp.cli.options import model_argument, output_option
from onnxcomp.cli.targets import check_writable
from onnxcomp.graph import pack_model, unpack_model


def pack_command() -> click.Command:
    """Return the command that packs a model."""

    def run(model: Path, output: Path) -> None:
        """Pack a model for download: entropy-coded by zstd, with a checksum.

        The file is unpacked again and compared before it is written; 'zstd -d' and 'tar' open it
        too. A model with data files becomes an archive, .tar.zst.
        """
        check_writable(output)
        with progress_bars(quiet=False) as tell:
            files = pack_model(model, output, progress=lambda share: tell("packing", share))
        before = sum(each.stat().st_size for each in files)
        after = output.stat().st_size
        click.echo(f"{before} to {after} bytes, {before / after:.2f} x smaller", err=True)
        click.echo(output)

    return click.Command(
        "pack",
        params=[
            model_argument("model"),
            output_option("Where the packed model goes; it ends in .zst, or in .tar.zst."),
        ],
        callback=run,
        help=run.__doc__,
        epilog="Example: onnxcomp pack small.onnx -o small.onnx.zst",
    )


def unpack_command() -> click.Command:
    """Return the command that unpacks a model."""

    def run(packed: Path, output: Path) -> None:
        """Unpack a model: the bytes that were packed, or nothing if the file is damaged."""
        check_writable(output)
        for path in unpack_model(packed, output):
            click.echo(path)

    return click.Command(
        "unpack",
        params=[
            model_argument("packed"),
            output_option("Where the model goes; its data files go beside it."),
        ],
        callback=run,
        help=run.__doc__,
        epilog="Example: onnxcomp unpack small.onnx.zst -o small.onnx",
    )
