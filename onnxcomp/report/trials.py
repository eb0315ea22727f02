"""What a search tried, a line each."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.text import Text

from onnxcomp.pipeline import parse_recipe
from onnxcomp.report.tables import size

if TYPE_CHECKING:
    from onnxcomp.pipeline import Pass
    from onnxcomp.report.records import Trial

STYLES = {"kept": "green", "missed": "yellow", "failed": "red"}


def trial_line(trial: Trial) -> Text:
    """Return a trial as one line."""
    cells = [f"{trial.number:3}", f"{trial.status:6}"]
    cells.append("" if trial.bytes is None else size(trial.bytes))
    cells += [
        form.format(value)
        for form, value in (
            ("drop {:.4f}", trial.drop),
            ("{:.1f} dB", trial.snr_db),
            ("{:.2f} of the time", trial.latency_ratio),
        )
        if value is not None
    ]
    cells += [pipeline_in_words(trial.recipe), f"{trial.seconds:.0f} s", trial.reason]
    return Text("  ".join(filter(None, cells)), style=STYLES[trial.status])


def pipeline_in_words(recipe: dict[str, Any]) -> str:
    """Return a pipeline with the options that are not as they are by default."""
    return ", ".join(map(_in_words, parse_recipe(recipe))) or "nothing"


def _in_words(one: Pass) -> str:
    plain = type(one)()
    options = [
        f"{name}={value:g}" if isinstance(value, float) else f"{name}={value}"
        for name, value in one.model_dump(mode="json").items()
        if value != plain.model_dump(mode="json")[name]
    ]
    return f"{one.name}({', '.join(options)})" if options else one.name
