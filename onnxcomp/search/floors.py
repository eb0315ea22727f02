"""How near to the floor a candidate is, when the best of many is sought."""

from __future__ import annotations

from dataclasses import dataclass
from math import exp, inf, pi, sqrt
from typing import TYPE_CHECKING

from onnxcomp.api import floors_of
from onnxcomp.intervals import ERRORS

if TYPE_CHECKING:
    from onnxcomp.api import Floor, Limits, Settings
    from onnxcomp.report import Report


def expected_drop(drop: float, interval: tuple[float, float] | None) -> float:
    """Return what new samples can be expected to lose, in the unit of the drop.

    Of many candidates the best is often one that a few samples happened to favour. A compressed
    model is no better than its original, so a gain is chance: the mean of the normal distribution
    that the drop's interval tells of, cut off below 0 (N. L. Johnson, S. Kotz, N. Balakrishnan,
    "Continuous Univariate Distributions", volume 1, 1994, section 10.1). The more samples, the
    nearer it is to the drop.

    Args:
        drop: What was measured.
        interval: Its 95 % interval; None where nobody knows it, and the drop has to do.
    """
    if interval is None:
        return drop
    error = (interval[1] - interval[0]) / (2 * ERRORS)
    if not error:
        return max(0.0, drop)
    from scipy.special import log_ndtr  # noqa: PLC0415 - slow to import, and only needed here

    return drop + error * exp(-((drop / error) ** 2) / 2 - log_ndtr(drop / error)) / sqrt(2 * pi)


@dataclass(frozen=True)
class Loss:
    """What a candidate lost, as far as there are floors.

    Args:
        strain: The most that it lost of what it may lose: above 1 it misses a floor; infinite
            where that cannot be told.
        missed: By how much it misses each floor that it misses, a line each.
    """

    strain: float
    missed: tuple[str, ...]


def loss_of(report: Report, settings: Settings) -> Loss:
    """Return what a candidate lost, as far as there are floors.

    Args:
        report: What was measured of it.
        settings: They have the floors.
    """
    strains, missed = [0.0], []
    for floor in floors_of(report, settings):
        lost = floor.measured
        if floor.option == "max_drop" and lost is not None and not floor.is_untouched:
            lost = expected_drop(lost, floor.interval)
        strains.append(_strain(floor, lost))
        if floor.verdict == "missed":
            missed.append(floor.text)
        elif strains[-1] > 1:
            missed.append(f"{floor.text}, and {lost:.4g} must be expected of others")
    return Loss(max(strains), tuple(missed))


def _strain(floor: Floor, lost: float | None) -> float:
    """Return what was lost over what may be lost; of noise, by its energy."""
    if lost is None:
        return inf
    if floor.option == "min_snr":
        return inf if lost == -inf else 10 ** ((floor.allowed - lost) / 10)
    if lost <= 0:
        return 0.0
    return lost / floor.allowed if floor.allowed else inf


def floor_in_words(settings: Settings, limits: Limits, metric: float | None) -> str:
    """Return what a result must not miss, in one line."""
    floors = []
    if settings.max_drop is not None and metric is None:
        allowed = settings.allowed_drop(1.0)
        floors.append(f"at least {1 - allowed:.4g} of the rows agree with the original's")
    elif settings.max_drop is not None and metric is not None:
        least = metric - settings.allowed_drop(metric)
        floors.append(f"a metric of at least {least:.4g}, the original's is {metric:.4g}")
    if settings.min_snr is not None:
        floors.append(f"an SNR of at least {settings.min_snr:g} dB")
    if limits.min_size_ratio is not None:
        floors.append(f"a size ratio of at least {limits.min_size_ratio:g}")
    if limits.max_latency_ratio is not None:
        floors.append(f"a latency ratio of at most {limits.max_latency_ratio:g}")
    return " and ".join(floors)
