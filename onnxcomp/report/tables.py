"""Reports as tables, for a terminal and for a notebook."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from rich.console import RenderableType

    from onnxcomp.benchmarking import Benchmark
    from onnxcomp.intervals import Interval
    from onnxcomp.report.records import Report, Step
    from onnxcomp.validation import Metric, Validation
    from onnxcomp.verdicts import Verdict

SHOWN_WORST = 5
"""Tensors with the largest errors that are listed."""

NOTEBOOK_WIDTH = 100
"""Characters a line in a notebook."""

SUMMARY_COLUMNS = ("measured", "original", "result", "ratio or drop")

OUTPUT_COLUMNS = ("provider", "samples", "output", "cosine", "SNR dB", "max abs", "agreement")


def report_table(report: Report) -> RenderableType:
    """Return everything that a run has to say, as one renderable."""
    parts: list[RenderableType] = [_steps(report.steps)] if report.steps else []
    parts += [
        _worst(step.changed)
        for step in report.steps
        if step.status == "applied" and any(each.error for each in step.changed)
    ]
    if report.validation:
        parts.append(_validations(report.validation))
    parts.append(_summary(report))
    if report.unchecked is not None:
        parts.append(Text(report.unchecked, style="yellow"))
    return Group(*parts)


def report_html(report: Report) -> str:
    """Return the tables as HTML, for a notebook."""
    console = Console(record=True, file=io.StringIO(), width=NOTEBOOK_WIDTH)
    console.print(report_table(report))
    frame = '<pre style="line-height:1.3;font-family:monospace">{code}</pre>'
    return console.export_html(inline_styles=True, code_format=frame)


def size(count: int) -> str:
    """Return bytes as people write them."""
    value, units = float(count), ["bytes", "kB", "MB", "GB"]
    while value >= 1000 and len(units) > 1:  # noqa: PLR2004 - SI prefixes
        value /= 1000
        units.pop(0)
    return f"{count} {units[0]}" if units[0] == "bytes" else f"{value:.2f} {units[0]}"


def _steps(steps: Iterable[Step]) -> Table:
    table = Table("pass", "status", "changed", "skipped", "bytes before", "after", "seconds")
    for step in steps:
        changed = step.changed
        status = step.status.replace("_", " ") + (f": {step.reason}" if step.reason else "")
        table.add_row(
            step.name,
            Text(status),
            str(len(changed)),
            str(len(step.tensors) - len(changed)),
            size(sum(each.bytes_before for each in changed)),
            size(sum(each.bytes_after for each in changed)),
            f"{step.seconds:.1f}",
        )
    return table


def _worst(changed: Sequence[Verdict]) -> Table:
    table = Table("largest errors", "operator", "shape", "bytes before", "after", "error")
    ranked = sorted(changed, key=lambda each: -(each.error or 0.0))
    for each in ranked[:SHOWN_WORST]:
        table.add_row(
            Text(each.name),
            Text(", ".join(each.op_types)),
            "x".join(map(str, each.shape)),
            size(each.bytes_before),
            size(each.bytes_after),
            f"{each.error or 0.0:.4f}",
        )
    return table


def _validations(validations: Iterable[Validation]) -> Table:
    """Return how close outputs are to the original's."""
    table = Table(*OUTPUT_COLUMNS)
    for each in validations:
        for row in output_rows(each):
            table.add_row(*map(Text, row))
        if each.not_finite:
            table.add_row(each.provider, "", Text(each.fed, style="yellow"))
        if each.problem is not None:
            table.add_row(each.provider, "", Text(each.problem, style="red"))
    return table


def output_rows(validation: Validation) -> list[tuple[str, ...]]:
    """Return how close each output is to the original's, under `OUTPUT_COLUMNS`."""
    samples = f"{validation.samples} synthetic" if validation.synthetic else validation.samples
    return [
        (
            validation.provider,
            str(samples),
            output.name if output.note is None else f"{output.name} ({output.note})",
            _number(output.cosine, "{:.6f}"),
            "identical" if output.is_identical else _number(output.snr_db, "{:.1f}"),
            _number(output.max_abs, "{:.3g}"),
            _number(output.agreement, "{:.4f}"),
        )
        for output in validation.outputs
    ]


def _summary(report: Report) -> Table:
    table = Table("", *SUMMARY_COLUMNS[1:], title="result")
    for row in summary_rows(report):
        table.add_row(*row)
    return table


def summary_rows(report: Report) -> list[tuple[str, str, str, str]]:
    """Return what was measured before and after, under `SUMMARY_COLUMNS`."""
    source, output = report.source, report.output
    zstd_ratio = source.zstd_bytes / output.zstd_bytes
    rows = [
        ("file", size(source.bytes), size(output.bytes), f"{report.size_ratio:.2f} x smaller"),
        (
            "file after zstd",
            size(source.zstd_bytes),
            size(output.zstd_bytes),
            f"{zstd_ratio:.2f} x smaller",
        ),
    ]
    if report.metric is not None:
        rows.append(_metric_row(report.metric))
    for each in report.benchmark:
        rows += _benchmark_rows(each)
    return rows


def _metric_row(metric: Metric) -> tuple[str, str, str, str]:
    relative = "" if metric.relative_drop is None else f" ({metric.relative_drop:.2%})"
    drop = f"drop {metric.drop:+.4f}{relative}"
    if metric.low is not None and metric.high is not None:
        drop += f" [{metric.low:.4f}, {metric.high:.4f}]"
    return "task metric", f"{metric.original:.4f}", f"{metric.result:.4f}", drop


def _benchmark_rows(benchmark: Benchmark) -> list[tuple[str, str, str, str]]:
    where = f"on {benchmark.provider}"
    timed = [
        (
            f"{what} {where}",
            f"control {_interval(control)}",
            _interval(ratio),
            f"{ratio.median:.2f} x",
        )
        for what, ratio, control in (
            ("latency", benchmark.latency_ratio, benchmark.control),
            ("CPU time", benchmark.cpu_ratio, benchmark.cpu_control),
        )
    ]
    before, after = benchmark.peak_memory.original, benchmark.peak_memory.result
    return [
        *timed,
        (f"load time {where}", "", "", f"{benchmark.load_ratio:.2f} x"),
        (f"peak memory {where}", size(before), size(after), f"{after / before:.2f} x"),
    ]


def _number(value: float | None, form: str) -> str:
    return "" if value is None else form.format(value)


def _interval(interval: Interval) -> str:
    return f"{interval.median:.3f} [{interval.low:.3f}, {interval.high:.3f}]"
