"""The command that observes a model and writes its statistics."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from onnxcomp.api import Settings, statistics
from onnxcomp.cli.console import progress_bars
from onnxcomp.cli.options import data_option, model_argument, options_of, output_option
from onnxcomp.cli.targets import check_targets
from onnxcomp.errors import OptionError
from onnxcomp.graph import load_model
from onnxcomp.statistics import load_statistics


def statistics_command() -> click.Command:
    """Return the command that writes a file for ``--statistics``."""

    def run(model: Path, output: Path, data: Path | None, **given: Any) -> None:
        """Observe what the layers of MODEL get, for passes to calibrate on later.

        With --merge, what other samples gave is added: files made from parts of the data, by
        several processes, add up to the file of the whole.
        """
        if data is None:
            raise OptionError("statistics needs --data: samples that the model is run on")
        check_targets({"model": model, "output": output, "data": data, **given})
        graph = load_model(model)
        others = [load_statistics(path, graph) for path in given["merge"]]
        with progress_bars(quiet=False) as tell:
            found = statistics(model, data, samples=given["samples"], progress=tell)
        for other in others:
            found.merge(other)
        found.save(output)
        click.echo(output)

    return click.Command(
        "statistics",
        params=[
            model_argument("model"),
            output_option(
                "Where the statistics go, an .npz; the old file stays until it is whole."
            ),
            data_option(),
            click.Option(
                ["--merge"],
                type=click.Path(path_type=Path),
                multiple=True,
                help="Statistics of the same model on other samples; repeatable.",
            ),
            *options_of(Settings, ("samples",)),
        ],
        callback=run,
        help=run.__doc__,
        epilog="Example: onnxcomp statistics model.onnx -o statistics.npz --data samples.npz",
    )
