"""The command for CI: does a model still hold what was asked of it?"""

from __future__ import annotations

from typing import Any

import click

from onnxcomp.api import Check, Limits, Settings, check
from onnxcomp.cli.console import progress_bars
from onnxcomp.cli.options import (
    data_option,
    json_option,
    model_argument,
    options_of,
    report_option,
    taken,
)
from onnxcomp.cli.targets import check_targets
from onnxcomp.errors import FloorError
from onnxcomp.report import save_report

SETTINGS = (
    *("samples", "evaluate", "max_drop", "min_snr", "provider", "threads", "seed"),
    "bench_seconds",
)

WORDS = {"held": "ok", "missed": "FAILED", "unclear": "cannot tell"}


def check_command() -> click.Command:
    """Return the command that holds a model against floors."""

    def run(**given: Any) -> None:
        """Hold MODEL against floors, beside the ORIGINAL that it was made from.

        Prints a line for each floor: what was measured, and what is allowed. Exits 3 where one
        is missed, and 1 where MODEL is not valid. Where the limit of the latency lies within the
        interval of what was measured, the line says so, and the floor is not missed.
        """
        check_targets(given)
        settings = Settings.model_validate(taken(Settings, given))
        limits = Limits.model_validate(taken(Limits, given))
        with progress_bars(quiet=given["as_json"]) as tell:
            done = check(
                given["model"],
                given["against"],
                limits,
                data=given["data"],
                settings=settings,
                progress=tell,
            )
        if given["report"] is not None:
            save_report(done.report, given["report"])
        if given["as_json"]:
            click.echo(done.to_json())
        else:
            _say(done)
        if done.missed:
            options = dict.fromkeys(each.option.replace("_", "-") for each in done.missed)
            names = ", ".join(f"--{option}" for option in options)
            raise FloorError(f"{given['model']} misses what is asked of it: {names}")

    return click.Command(
        "check",
        params=[
            model_argument("model"),
            click.Option(
                ["--against"],
                type=model_argument("against").type,
                required=True,
                metavar="ORIGINAL",
                help="The model that MODEL was made from.",
            ),
            data_option(),
            *options_of(Settings, SETTINGS),
            *options_of(Limits),
            json_option(),
            report_option(),
        ],
        callback=run,
        help=run.__doc__,
        epilog="Example: onnxcomp check small.onnx --against model.onnx --data samples.npz "
        "--max-drop 1% --min-size-ratio 4 --max-latency-ratio 1.05",
    )


def _say(done: Check) -> None:
    for each in done.floors:
        click.echo(f"{WORDS[each.verdict]}: {each.text}")
