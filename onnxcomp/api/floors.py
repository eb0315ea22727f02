"""Floors that a result must not miss, each with what was measured."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from onnxcomp.api.settings import Limits, Settings
from onnxcomp.report import Record
from onnxcomp.runtime.comparison import least_agreement

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
        interval: Its 95 % interval; None where there is none.
        allowed: The most or the least that ``measured`` may be.
        text: Both in words, in one line.
    """

    option: Literal["max_drop", "min_snr", "min_size_ratio", "max_latency_ratio"]
    verdict: Literal["held", "missed", "unclear"]
    measured: float | None
    interval: tuple[float, float] | None = None
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


def doubt_of(report: Report, settings: Settings) -> str | None:
    """Return why it cannot be told that a result keeps the floor, in one line; None if it can."""
    floors = floors_of(report, settings)
    return next((each.text for each in floors if each.verdict == "unclear"), None)


def _drop(metric: Metric, allowed: float) -> Floor:
    interval = None
    if metric.low is not None and metric.high is not None:
        interval = (metric.low, metric.high)
    text = (
        f"the metric dropped by {metric.drop:.4g} (from {metric.original:.4g} to "
        f"{metric.result:.4g})"
    )
    return _dropped(text, metric.drop, interval, allowed)


def _disagreement(validation: Validation, allowed: float) -> Floor:
    """Return the floor of the output whose rows agree least with the original's."""
    worst = least_agreement(validation.outputs)
    if worst is None or worst.agreement is None:
        return Floor(
            option="max_drop",
            verdict="missed",
            measured=None,
            allowed=allowed,
            text="no output has rows that could agree; give a metric by evaluate, or min_snr",
        )
    measured, interval = 1 - worst.agreement, None
    if worst.agreement_low is not None and worst.agreement_high is not None:
        interval = (1 - worst.agreement_high, 1 - worst.agreement_low)
    text = f"{measured:.4g} of the rows disagree with the original's {_where(validation)}"
    return _dropped(text, measured, interval, allowed)


def _dropped(
    text: str, measured: float, interval: tuple[float, float] | None, allowed: float
) -> Floor:
    """Return the floor of what dropped; it is unclear where it may be missed elsewhere."""
    text += f", allowed is {allowed:.4g}"
    is_held = measured <= allowed
    if interval is not None:
        low, high = interval
        text += f"; the 95 % interval is {low:.4g} to {high:.4g}"
        if low <= allowed < high:
            text += ", so that so few samples cannot tell"
    may_be_missed = interval is not None and interval[1] > allowed
    return Floor(
        option="max_drop",
        verdict="missed" if not is_held else "unclear" if may_be_missed else "held",
        measured=measured,
        interval=interval,
        allowed=allowed,
        text=text,
    )


def _snr(validation: Validation, least: float) -> Floor:
    floats = [each for each in validation.outputs if each.is_float]
    misshapen = next((each for each in floats if each.misshapen), None)
    worst = None if misshapen is not None else validation.worst_snr_db
    if misshapen is not None:
        text = f"output {misshapen.name!r} {misshapen.note}, where it has no SNR; use max_drop"
    elif worst is None:
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
        interval=(ratio.low, ratio.high),
        allowed=most,
        text=text + ("; the interval contains it, so this cannot be told" if unclear else ""),
    )
