"""What a search tried, a line each."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.text import Text

from onnxcomp.pipeline import available_passes
from onnxcomp.report.tables import size

if TYPE_CHECKING:
    from onnxcomp.report.records import Trial

MOST_ENTRIES = 2
"""Of a list that is written out."""

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
    """Return a pipeline with the options that are not as they are by default.

    Of a pass that is not installed here, only the name is told.
    """
    return ", ".join(map(_in_words, recipe["passes"])) or "nothing"


def _in_words(entry: dict[str, Any]) -> str:
    cls = available_passes().get(entry["pass"])
    plain = {} if cls is None else cls().model_dump(mode="json")
    options = [
        f"{name}={_shortened(value)}"
        for name, value in entry.items()
        if name in plain and value != plain[name]
    ]
    return f"{entry['pass']}({', '.join(options)})" if options else str(entry["pass"])


def _shortened(value: object) -> object:
    if isinstance(value, list) and len(value) > MOST_ENTRIES:
        return f"{len(value)} entries"
    return f"{value:g}" if isinstance(value, float) else value
