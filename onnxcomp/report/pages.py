"""Reports as one HTML page each, which loads nothing: it can be mailed, and opened years later."""

from __future__ import annotations

import re
from functools import cache
from math import isfinite
from typing import TYPE_CHECKING, Any

from onnxcomp.pipeline import recipe_toml
from onnxcomp.report import pareto, rounds
from onnxcomp.report.layers import layers
from onnxcomp.report.sensitivities import snr_text
from onnxcomp.report.sentences import (
    environment_rows,
    noise_in_words,
    operators_in_words,
    tiles,
    title,
    what_was_done,
)
from onnxcomp.report.tables import (
    OUTPUT_COLUMNS,
    SUMMARY_COLUMNS,
    output_rows,
    size,
    summary_rows,
)
from onnxcomp.report.trials import pipeline_in_words

if TYPE_CHECKING:
    from collections.abc import Iterable

    from jinja2 import Environment

    from onnxcomp.report.graph_changes import GraphChange
    from onnxcomp.report.records import Report
    from onnxcomp.report.sensitivities import Sensitivity

MOST_ROWS = 30
"""Rows of a long table that are not folded away."""

SECTIONS = (
    ("search", "Search"),
    ("steps", "Steps"),
    ("layers", "Layers"),
    ("benchmark", "Latency"),
    ("validation", "Outputs"),
    ("graph", "Graph"),
    ("recipe", "Recipe"),
    ("environment", "Environment"),
)
"""Anchors and names of the sections that a report may have, in their order."""


def report_page(report: Report) -> str:
    """Return a report as a page."""
    seen = layers(report.steps)
    changed = [layer for layer in seen if layer.changes]
    held = {**dict(report), "layers": seen, "environment": True}
    return _render(
        "report.html",
        version=report.version,
        report=report,
        title=title(report),
        sentence=what_was_done(report),
        tiles=tiles(report),
        sections=[each for each in SECTIONS if held[each[0]]],
        summary_columns=SUMMARY_COLUMNS,
        summary=summary_rows(report),
        pareto_plots=pareto.pareto_plots(report),
        pareto_frame=pareto,
        best_trials=pareto.best_trials(report),
        changed=changed,
        left=[layer for layer in seen if not layer.changes],
        most_rows=MOST_ROWS,
        largest_bytes=max((layer.bytes_before for layer in changed), default=0),
        largest_error=max((layer.error for layer in changed), default=0.0),
        rounds=[(each, rounds.rounds_plot(each)) for each in report.benchmark],
        rounds_frame=rounds,
        noise=list(filter(None, map(noise_in_words, report.benchmark))),
        output_columns=OUTPUT_COLUMNS,
        outputs=[row for each in report.validation for row in output_rows(each)],
        problems=[each.problem for each in report.validation if each.problem is not None],
        operator_counts=_operator_counts(report.graph),
        environment=environment_rows(report),
    )


def sensitivity_page(found: Sensitivity) -> str:
    """Return a ranking as a page."""
    errors = [each.squared_error for each in found.weights if isfinite(each.squared_error)]
    return _render(
        "sensitivity.html",
        version=found.version,
        found=found,
        largest_error=max(errors, default=0.0),
        largest_saving=max((each.bytes_saved for each in found.weights), default=0),
        recipe={"passes": [{"pass": found.name, **_given(found.options)}]},
    )


def _render(template: str, **content: Any) -> str:
    return _templates().get_template(template).render(content)


@cache
def _templates() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined  # noqa: PLC0415 - slow

    # Names in a model are anybody's: escaping is on for all that is put into a page.
    found = Environment(
        loader=PackageLoader("onnxcomp.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found.filters.update(
        size=size,
        share=_share,
        unbroken=_unbroken,
        snr_text=snr_text,
        operators=operators_in_words,
        pipeline_in_words=pipeline_in_words,
        recipe_toml=recipe_toml,
    )
    return found


def _share(value: float, largest: float) -> str:
    """Return how long a bar is, in per cent of the longest."""
    return f"{min(100 * value / largest, 100.0):.1f}" if largest and value > 0 else "0"


def _unbroken(text: str) -> str:
    """Return text that is not broken before a unit or inside an interval."""
    return re.sub(r"(?<=,) |(?<=\d) (?=[\w%])", "\N{NO-BREAK SPACE}", text)


def _given(options: dict[str, Any]) -> dict[str, Any]:
    """Return options without those that are not set, which TOML cannot say."""
    return {name: value for name, value in options.items() if value is not None}


def _operator_counts(graph: GraphChange | None) -> Iterable[tuple[str, int, int]]:
    """Return how often each operator occurs before and after."""
    if graph is None:
        return []
    before, after = graph.operators_before, graph.operators_after
    return [
        (name, before.get(name, 0), after.get(name, 0)) for name in dict.fromkeys(before | after)
    ]
