"""What a run came to, in words: the first thing that a page says."""

from __future__ import annotations

from collections import Counter
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING

from onnxcomp.report.tables import size

if TYPE_CHECKING:
    from collections.abc import Sequence

    from onnxcomp.benchmarking import Benchmark
    from onnxcomp.report.records import FileRecord, Report
    from onnxcomp.validation import Metric

NOISE = 0.05
"""Half-width of the control's interval from which a machine is called noisy."""

TIMES = "\N{MULTIPLICATION SIGN}"

LONGEST_CHAIN = 6
"""Operators that are written out one after the other."""


def file_name(file: FileRecord, role: str) -> str:
    """Return the name of a model's file, or what it is where it has none."""
    return role if file.path is None else Path(file.path).name


def title(report: Report) -> str:
    """Return what a report is about."""
    source = file_name(report.source, "the original")
    return f"{source} → {file_name(report.output, 'the result')}"


def what_was_done(report: Report) -> str:
    """Return in a few sentences what was done and what it cost."""
    parts = [_sizes(report)]
    if report.metric is not None:
        parts.append(_metric(report.metric))
    elif report.validation:
        parts.append(_outputs(report))
    parts += [latency_in_words(each) for each in report.benchmark]
    if report.unchecked is not None:
        parts.append(f"Mind that {report.unchecked}.")
    if report.missed is not None:
        parts.append(f"It misses the floor: {report.missed}.")
    elif report.doubt is not None:
        parts.append(f"It keeps the floor as far as can be told: {report.doubt}.")
    return " ".join(parts)


def _sizes(report: Report) -> str:
    source, output = report.source, report.output
    before = f"{file_name(source, 'The original')} ({size(source.bytes)})"
    after = f"{file_name(output, 'a model')} ({size(output.bytes)})"
    ratio = report.size_ratio
    compared = f"{ratio:.2f} times smaller" if ratio >= 1 else f"{1 / ratio:.2f} times larger"
    applied = [each.name for each in report.steps if each.status == "applied"]
    if not report.steps:
        return f"{after} is {compared} than {before}."
    if not applied:
        return f"{before} was left as it was: no pass had a result that was kept."
    return f"{before} became {after}, {compared}, by {_listed(applied)}."


def _metric(metric: Metric) -> str:
    if metric.drop == 0:
        return f"The task metric stayed at {metric.original:.4f}."
    verb = "fell" if metric.drop > 0 else "rose"
    told = f"The task metric {verb} from {metric.original:.4f} to {metric.result:.4f}"
    if metric.low is None or metric.high is None:
        return f"{told}."
    doubt = ", which may be chance" if metric.low <= 0 <= metric.high else ""
    return (
        f"{told}{doubt} (95 % interval of the drop over {metric.items} items: {metric.low:.4f} to "
        f"{metric.high:.4f})."
    )


def _outputs(report: Report) -> str:
    problem = next((each.problem for each in report.validation if each.problem), None)
    if problem is not None:
        return f"It is not valid: {problem}."
    known = [each.worst_snr_db for each in report.validation if each.worst_snr_db is not None]
    first = report.validation[0]
    on = f"on {first.fed}"
    outputs = [output for each in report.validation for output in each.outputs]
    if all(output.is_identical for output in outputs):
        return f"Its outputs are identical {on}."
    others = [
        f"Output {each.name} {each.note}."
        for each in outputs
        if each.misshapen or not each.compared
    ]
    if known and isfinite(min(known)):
        others.insert(0, f"The lowest SNR of its outputs is {min(known):.1f} dB {on}.")
    return " ".join(others)


def latency_in_words(benchmark: Benchmark) -> str:
    """Return whether a result is faster, as far as its interval and the control's can tell."""
    ratio = benchmark.latency_ratio
    told = f"ratio {ratio.median:.2f}, 95 % interval {ratio.low:.2f} to {ratio.high:.2f}"
    if not _can_be_told(benchmark):
        said = "No difference in latency can be told"
    elif ratio.median < 1:
        said = f"It runs in {ratio.median:.2f} of the original's time"
    else:
        said = f"It takes {ratio.median:.2f} times as long as the original"
    return f"{said} on {benchmark.provider} ({told})."


def _can_be_told(benchmark: Benchmark) -> bool:
    """Whether a result's interval is beyond 1 and beyond what the control shows to be noise."""
    ratio, control = benchmark.latency_ratio, benchmark.control
    return ratio.high < min(1.0, control.low) or ratio.low > max(1.0, control.high)


def noise_in_words(benchmark: Benchmark) -> str:
    """Return what the control says of the machine; empty where it was quiet."""
    control = benchmark.control
    if control.low > 1 - NOISE and control.high < 1 + NOISE:
        return ""
    return (
        f"The machine was noisy: the original against itself measured {control.low:.2f} to "
        f"{control.high:.2f}, so smaller differences than that cannot be told."
    )


def tiles(report: Report) -> list[tuple[str, str]]:
    """Return the few numbers that matter most, each with what it is."""
    ratio = report.size_ratio
    found = [
        (
            f"{ratio:.2f}{TIMES}",
            f"smaller: {size(report.source.bytes)} → {size(report.output.bytes)}",
        )
    ]
    if report.metric is not None:
        metric = report.metric
        told = f"task metric: {metric.original:.4f} → {metric.result:.4f}"
        found.append((f"{-metric.drop:+.4f}" if metric.drop else "\N{PLUS-MINUS SIGN}0", told))
    known = [each.worst_snr_db for each in report.validation if each.worst_snr_db is not None]
    if known:
        worst = f"{min(known):.1f} dB" if isfinite(min(known)) else _of_infinite(min(known))
        found.append((worst, "lowest SNR of the outputs"))
    for each in report.benchmark:
        interval = f"[{each.latency_ratio.low:.2f}, {each.latency_ratio.high:.2f}]"
        doubt = "" if _can_be_told(each) else "; no difference can be told"
        told = f"of the original's latency on {each.provider} {interval}{doubt}"
        found.append((f"{each.latency_ratio.median:.2f}{TIMES}", told))
    return found


def _of_infinite(snr_db: float) -> str:
    return "identical" if snr_db > 0 else "not finite"


def operators_in_words(op_types: Sequence[str]) -> list[str]:
    """Return operators one after the other; a long chain as how often each occurs."""
    if len(op_types) <= LONGEST_CHAIN:
        return list(op_types)
    return [f"{count} {name}" for name, count in Counter(op_types).most_common()]


def environment_rows(report: Report) -> list[tuple[str, str]]:
    """Return what a run ran on, each with its name."""
    rows = [("onnxcomp", report.version)]
    found = report.environment
    if found is None:
        return rows
    cores = "" if found.cores is None else f", {found.cores} logical cores"
    return [
        *rows,
        ("onnx", found.onnx),
        ("ONNX Runtime", found.onnxruntime),
        ("Python", found.python),
        ("system", found.system),
        ("processor", f"{found.processor}{cores}"),
        ("providers", ", ".join(found.providers)),
        ("threads", str(found.threads or "ONNX Runtime's choice, but timed with 1")),
        ("original, SHA-256", report.source.sha256),
        ("result, SHA-256", report.output.sha256),
    ]


def _listed(words: list[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
