"""Floors that a result must not miss, each with what was measured."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from onnxcomp.api.settings import Limits, Settings
from onnxcomp.report import Record
from onnxcomp.runtime.comparison import least_agreement, worst_snr_db

if TYPE_CHECKING:
    from collections.abc import Sequence

    from onnxcomp.benchmarking import Benchmark
    from onnxcomp.report import Report
    from onnxcomp.runtime.comparison import OutputComparison
    from onnxcomp.validation import Metric, Validation

REMEDY = "ask for more bits or leave layers out with --exclude"

NO_LIMITS = Limits()


class OutputFloor(Record):
    """What one output must not miss; an output without either number is not judged.

    Attributes:
        output: Its name.
        kind: What it holds: rows of probabilities; rows of other numbers, of which the largest may
            be what counts; numbers of any other shape; labels, which are equal or not; or the
            state of a recurrent model, which is fed back.
        max_drop: Most of its rows, or of its labels, that may disagree, in [0, 1].
        min_snr: Its least signal-to-noise ratio, in dB.
    """

    output: str
    kind: Literal["probabilities", "scores", "numbers", "labels", "state"]
    max_drop: float | None = None
    min_snr: float | None = None


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


def floors_of(
    report: Report,
    settings: Settings,
    limits: Limits = NO_LIMITS,
    outputs: Sequence[OutputFloor] = (),
) -> list[Floor]:
    """Return each floor that is asked for; of outputs and latency, one for each provider.

    Args:
        report: What was measured.
        settings: What the accuracy must be.
        limits: What size and latency must be.
        outputs: What single outputs must not miss besides.
    """
    floors: list[Floor] = []
    if settings.max_drop is not None and report.metric is not None:
        allowed = settings.allowed_drop(report.metric.original)
        floors.append(_drop(report.metric, allowed))
    elif settings.max_drop is not None:
        allowed = settings.allowed_drop(1.0)
        floors += [_disagreement(each, each.outputs, allowed) for each in report.validation]
    if settings.min_snr is not None:
        floors += [_snr(each, each.outputs, settings.min_snr) for each in report.validation]
    for one in outputs:
        floors += _of_output(report, one)
    if limits.min_size_ratio is not None:
        floors.append(_size(report, limits.min_size_ratio))
    if limits.max_latency_ratio is not None:
        floors += [_latency(each, limits.max_latency_ratio) for each in report.benchmark]
    return floors


def _of_output(report: Report, one: OutputFloor) -> list[Floor]:
    floors = []
    for validation in report.validation:
        chosen = [each for each in validation.outputs if each.name == one.output]
        if one.max_drop is not None:
            floors.append(_disagreement(validation, chosen, one.max_drop))
        if one.min_snr is not None:
            floors.append(_snr(validation, chosen, one.min_snr))
    return floors


def missed_floor(
    report: Report, settings: Settings, outputs: Sequence[OutputFloor] = ()
) -> str | None:
    """Return by how much a result misses the floor, in one line; None if it does not."""
    floors = floors_of(report, settings, outputs=outputs)
    missed = next((each for each in floors if each.verdict == "missed"), None)
    if missed is None:
        return None
    # What could not be measured is no matter of bits.
    return missed.text if missed.measured is None else f"{missed.text}; {REMEDY}"


def doubt_of(
    report: Report, settings: Settings, outputs: Sequence[OutputFloor] = ()
) -> str | None:
    """Return why it cannot be told that a result keeps the floor, in one line; None if it can."""
    floors = floors_of(report, settings, outputs=outputs)
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


def _disagreement(
    validation: Validation, outputs: Sequence[OutputComparison], allowed: float
) -> Floor:
    """Return the floor of the output whose rows agree least with the original's."""
    worst = least_agreement(outputs)
    untold = _nothing_compared(validation, outputs)
    if untold is not None or worst is None or worst.agreement is None:
        nothing = "no output has rows that could agree; give a metric by evaluate, or min_snr"
        return _untold("max_drop", allowed, untold or nothing)
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


def _snr(validation: Validation, outputs: Sequence[OutputComparison], least: float) -> Floor:
    misshapen = next((each for each in outputs if each.is_float and each.misshapen), None)
    worst = worst_snr_db(outputs)
    untold = _nothing_compared(validation, outputs)
    if untold is None and misshapen is not None:
        untold = f"output {misshapen.name!r} {misshapen.note}, where it has no SNR; use max_drop"
    if untold is not None or worst is None:
        nothing = "no output holds floats that have an SNR; use max_drop"
        return _untold("min_snr", least, untold or nothing)
    return Floor(
        option="min_snr",
        verdict="missed" if worst < least else "held",
        measured=worst,
        allowed=least,
        text=f"the SNR of the outputs is {worst:.1f} dB {_where(validation)}, least is {least:g}",
    )


def _nothing_compared(validation: Validation, outputs: Sequence[OutputComparison]) -> str | None:
    """Return why nothing can be told of an output; None where each has what can be compared."""
    found = next((each for each in outputs if not each.compared), None)
    if found is None:
        return None
    return (
        f"nothing could be compared of output {found.name!r} {_where(validation)}: it has no "
        "finite element there; give --data on which it has"
    )


def _untold(option: Literal["max_drop", "min_snr"], allowed: float, text: str) -> Floor:
    """Return a floor of which nothing could be measured, and which is missed for that."""
    return Floor(option=option, verdict="missed", measured=None, allowed=allowed, text=text)


def _where(validation: Validation) -> str:
    return f"on {validation.provider} ({validation.fed})"


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
