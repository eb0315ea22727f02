"""Reports as Markdown for a pull request: the numbers in sight, the rest folded away."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from onnxcomp.pipeline import recipe_toml
from onnxcomp.report.layers import layers
from onnxcomp.report.sensitivities import ROWS, snr_text
from onnxcomp.report.sentences import (
    environment_rows,
    operators_in_words,
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
    from collections.abc import Iterable, Sequence

    from onnxcomp.report.graph_changes import GraphChange
    from onnxcomp.report.layers import Layer
    from onnxcomp.report.records import Report, Search, Step
    from onnxcomp.report.sensitivities import Sensitivity

TRIAL_COLUMNS = ("no.", "result", "pipeline", "bytes", "drop", "SNR dB", "latency")

STEP_COLUMNS = ("pass", "status", "changed", "left alone", "bytes before", "after")

LAYER_COLUMNS = ("weight", "operators", "shape", "bytes before", "after", "error", "verdict")

RANKING_COLUMNS = (
    "rank",
    "weight",
    "operators",
    "shape",
    "squared error",
    "SNR dB",
    "bytes saved",
)

SPECIAL = re.compile(
    r"""
    [\\`*<>|~$@&\#]                            # code, emphasis, tags, cells, formulas, mentions
    | (?<![A-Za-z0-9])_ | _(?![A-Za-z0-9])      # emphasis, unless it is inside a word
    | \](?=[(\[:])                               # links and pictures
    | :(?=\S)                                   # addresses, and names of emoji
    """,
    re.VERBOSE,
)
"""Characters that Markdown gives a meaning where they stand."""


def report_markdown(report: Report) -> str:
    """Return a report as Markdown."""
    seen = layers(report.steps)
    parts = [
        f"### {_plain(title(report))}",
        _plain(what_was_done(report)),
        _table(SUMMARY_COLUMNS, summary_rows(report)),
    ]
    if report.search is not None:
        parts.append(_search(report.search))
    if report.steps:
        parts.append(_folded("Steps", _table(STEP_COLUMNS, map(_step_row, report.steps))))
        rows = [_layer_row(layer) for layer in seen if layer.changes]
        rows += [_layer_row(layer) for layer in seen if not layer.changes]
        parts.append(_folded(f"{len(seen)} weights", _table(LAYER_COLUMNS, rows)))
    if report.validation:
        outputs = [row for each in report.validation for row in output_rows(each)]
        parts.append(_folded("Outputs", _table(OUTPUT_COLUMNS, outputs)))
    if report.graph is not None and (report.graph.rewrites or report.graph.resized):
        parts.append(_folded("Graph", _graph(report.graph)))
    if report.recipe is not None:
        parts.append(_folded("Recipe", _code(recipe_toml(report.recipe), "toml")))
    parts.append(_folded("Environment", _table(("", ""), environment_rows(report))))
    return "\n\n".join(parts) + "\n"


def sensitivity_markdown(found: Sensitivity) -> str:
    """Return a ranking as Markdown: the worst weights, and all together."""
    rows = [
        (
            str(each.rank),
            each.name,
            ", ".join(each.op_types),
            _shape(each.shape),
            f"{each.squared_error:.3g}",
            snr_text(each),
            size(each.bytes_saved),
        )
        for each in found.weights[:ROWS]
    ]
    together = found.together
    error = f"{together.squared_error:.3g}"
    last = ("all together", "", "", error, snr_text(together), size(together.bytes_saved))
    told = (
        f"{len(found.weights)} weights, each changed alone; {found.samples} held-out samples on "
        f"{found.provider}."
    )
    return "\n\n".join(
        (
            f"### {_plain(found.title)}",
            _plain(told),
            _table(RANKING_COLUMNS, [*rows, ("", *last)]) + "\n",
        )
    )


def _search(search: Search) -> str:
    rows = [
        (
            str(each.number),
            "chosen" if each.number == search.chosen else each.status,
            "; ".join(filter(None, (pipeline_in_words(each.recipe), each.reason))),
            "" if each.bytes is None else size(each.bytes),
            _number(each.drop, ".4f"),
            _number(each.snr_db, ".1f"),
            _number(each.latency_ratio, ".2f"),
        )
        for each in search.trials
    ]
    told = f"{len(rows)} candidates for {search.goal}; floor: {search.floor}"
    return _folded(told, _table(TRIAL_COLUMNS, rows))


def _step_row(step: Step) -> tuple[str, ...]:
    changed = step.changed
    return (
        step.name,
        ": ".join(filter(None, (step.status.replace("_", " "), step.reason))),
        str(len(changed)),
        str(len(step.tensors) - len(changed)),
        size(sum(each.bytes_before for each in changed)),
        size(sum(each.bytes_after for each in changed)),
    )


def _layer_row(layer: Layer) -> tuple[str, ...]:
    told = [f"{name}: {verdict.reason}" for name, verdict in layer.changes]
    return (
        layer.name,
        ", ".join(layer.op_types),
        _shape(layer.shape),
        size(layer.bytes_before),
        size(layer.bytes_after),
        f"{layer.error:.4f}" if layer.changes else "",
        "; ".join(told) or f"left alone: {layer.reason}",
    )


def _graph(graph: GraphChange) -> str:
    rows = [
        (
            str(len(each.places)),
            ", ".join(operators_in_words(each.before)),
            ", ".join(operators_in_words(each.after)) or "nothing",
            ", ".join((*each.places[:1], *(["…"] if len(each.places) > 1 else []))),
        )
        for each in graph.rewrites
    ]
    rows += [
        (
            "1",
            f"{each.op_type} {', '.join(map(_shape, each.before))}",
            f"{each.op_type} {', '.join(map(_shape, each.after))}",
            each.name,
        )
        for each in graph.resized
    ]
    return _table(("places", "was", "is", "where"), rows)


def _table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines: list[Sequence[str]] = [columns, ["---"] * len(columns)]
    lines += [[_plain(cell) for cell in row] for row in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _folded(summary: str, body: str) -> str:
    return f"<details><summary>{_plain(summary)}</summary>\n\n{body}\n\n</details>"


def _code(text: str, language: str) -> str:
    """Return a block of code; its fence is longer than any in the text."""
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{language}\n{text.strip()}\n{fence}"


def _plain(text: str) -> str:
    """Return text that Markdown and HTML take as it is: names in a model are anybody's."""
    return SPECIAL.sub(lambda found: f"&#{ord(found[0])};", " ".join(text.split()))


def _shape(sizes: Sequence[int]) -> str:
    return "x".join(map(str, sizes)) or "scalar"


def _number(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)
