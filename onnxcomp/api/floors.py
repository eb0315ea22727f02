"""Floors that a result must not miss, each with what was measured."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from onnxcomp.api.settings import Limits, Settings
from onnxcomp.report import Record
from onnxcomp.runtime.comparison import largest_disagreement

if TYPE_CHECKING:
    from onnxcomp.benchmarking import Benchmark
    from onnxcomp.report import Report
    from onnxcomp.validation import Metric, Validation

REMEDY = "ask for more bits or leave layers out with --exclude"

NO_LIMITS = Limits()


class Floor(Record):
    """One floor.

    Attributes:
        option: The option that asks for it.
        verdict: Whether it is held; ``unclear`` where the interval of what was measured contains
            what is allowed.
        measured: In the unit of the option; None where it cannot be told, which is a miss.
        allowed: The most or the least that ``measured`` may be.
        text: Both in words, in one line.
    """

    option: Literal["max_drop", "min_snr", "min_size_ratio", "max_latency_ratio"]
    verdict: Literal["held", "missed", "unclear"]
    measured: float | None
    allowed: float
    text: str


def floors_of(report: Report, settings: Settings, limits: Limits = NO_LIMITS) -> list[Floor]:
    """Return each floor that is asked for; of outputs and latency, one for each provider.

    Args:
        report: What was measured.
        settings: What the accuracy must be.
        limits: What size and latency must be.
    """
    floors: list[Floor] = []
    if settings.max_drop is not None and report.metric is not None:
        allowed = settings.allowed_drop(report.metric.original)
        floors.append(_drop(report.metric, allowed))
    elif settings.max_drop is not None:
        allowed = settings.allowed_drop(1.0)
        floors += [_disagreement(each, allowed) for each in report.validation]
    if settings.min_snr is not None:
        floors += [_snr(each, settings.min_snr) for each in report.validation]
    if limits.min_size_ratio is not None:
        floors.append(_size(report, limits.min_size_ratio))
    if limits.max_latency_ratio is not None:
        floors += [_latency(each, limits.max_latency_ratio) for each in report.benchmark]
    return floors


def missed_floor(report: Report, settings: Settings) -> str | None:
    """Return by how much a result misses the floor, in one line; None if it does not."""
    missed = (each.text for each in floors_of(report, settings) if each.verdict == "missed")
    return next((f"{text}; {REMEDY}" for text in missed), None)


def _drop(metric: Metric, allowed: float) -> Floor:
    return Floor(
        option="max_drop",
        verdict="missed" if metric.drop > allowed else "held",
        measured=metric.drop,
        allowed=allowed,
        text=f"the metric dropped by {metric.drop:.4g} (from {metric.original:.4g} to "
        f"{metric.result:.4g}), allowed is {allowed:.4g}{_doubt(metric, allowed)}",
    )


def _doubt(metric: Metric, allowed: float) -> str:
    """Say whether the items are enough to tell, where the evaluator gave a number for each."""
    if metric.low is None or metric.high is None:
        return ""
    interval = (
        f"; the 95 % interval over {metric.items} items is {metric.low:.4g} to {metric.high:.4g}"
    )
    return interval + (", so that they cannot tell" if metric.low <= allowed < metric.high else "")


def _disagreement(validation: Validation, allowed: float) -> Floor:
    """Return the floor of the output whose rows agree least with the original's."""
    measured = largest_disagreement(validation.outputs)
    if measured is None:
        return Floor(
            option="max_drop",
            verdict="missed",
            measured=None,
            allowed=allowed,
            text="no output has rows that could agree; give a metric by evaluate, or min_snr",
        )
    return Floor(
        option="max_drop",
        verdict="missed" if measured > allowed else "held",
        measured=measured,
        allowed=allowed,
        text=f"{measured:.4g} of the rows disagree with the original's {_where(validation)}, "
        f"allowed is {allowed:.4g}",
    )


def _snr(validation: Validation, least: float) -> Floor:
    worst = validation.worst_snr_db
    if worst is None:
        text = "no output holds floats that have an SNR; use max_drop"
    else:
        text = f"the SNR of the outputs is {worst:.1f} dB {_where(validation)}, least is {least:g}"
    return Floor(
        option="min_snr",
        verdict="missed" if worst is None or worst < least else "held",
        measured=worst,
        allowed=least,
        text=text,
    )


def _where(validation: Validation) -> str:
    made_up = "made-up " if validation.synthetic else ""
    return f"on {validation.provider} ({validation.samples} {made_up}samples)"


def _size(report: Report, least: float) -> Floor:
    return Floor(
        option="min_size_ratio",
        verdict="missed" if report.size_ratio < least else "held",
        measured=report.size_ratio,
        allowed=least,
        text=f"the size ratio is {report.size_ratio:.4g} ({report.source.bytes} to "
        f"{report.output.bytes} bytes), least is {least:g}",
    )


def _latency(timed: Benchmark, most: float) -> Floor:
    """Return the floor of a latency: missed only where the whole interval is above it."""
    ratio, control = timed.latency_ratio, timed.control
    unclear = ratio.low <= most < ratio.high
    text = (
        f"the latency ratio on {timed.provider} is {ratio.median:.3f} [{ratio.low:.3f}, "
        f"{ratio.high:.3f}], the original against itself {control.median:.3f}, most is {most:g}"
    )
    return Floor(
        option="max_latency_ratio",
        verdict="missed" if ratio.low > most else "unclear" if unclear else "held",
        measured=ratio.median,
        allowed=most,
        text=text + ("; the interval contains it, so this cannot be told" if unclear else ""),
    )
