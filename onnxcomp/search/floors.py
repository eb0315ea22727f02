"""How near to the floor a trial is, when the best of many trials is sought."""

from __future__ import annotations

from math import exp, inf, pi, sqrt
from typing import TYPE_CHECKING

from onnxcomp.api import floors_of

if TYPE_CHECKING:
    from onnxcomp.api import Settings
    from onnxcomp.report import Report, Trial
    from onnxcomp.validation import Metric

INTERVAL_ERRORS = 2 * 1.96
"""Standard errors that a 95 % interval is wide."""


def expected_drop(metric: Metric) -> float:
    """Return what new items can be expected to lose, in the metric's unit.

    Of many candidates the best is often one that a few items happened to favour. A compressed
    model is no better than its original, so a gain is chance: the mean of the normal distribution
    that the drop's interval tells of, cut off below 0 (N. L. Johnson, S. Kotz, N. Balakrishnan,
    "Continuous Univariate Distributions", volume 1, 1994, section 10.1). The more items, the
    nearer it is to the drop; where the metric tells of no items, it is the drop.

    Args:
        metric: What was measured.
    """
    if metric.low is None or metric.high is None:
        return metric.drop
    error = (metric.high - metric.low) / INTERVAL_ERRORS
    if not error:
        return max(0.0, metric.drop)
    from scipy.special import log_ndtr  # noqa: PLC0415 - slow to import, and only needed here

    errors = metric.drop / error
    return metric.drop + error * exp(-(errors**2) / 2 - log_ndtr(errors)) / sqrt(2 * pi)


def missed_floors(report: Report, settings: Settings) -> list[str]:
    """Return by how much a candidate misses each floor that it misses, a line each.

    Args:
        report: What was measured of it.
        settings: They have the floors.
    """
    missed = [each.text for each in floors_of(report, settings) if each.verdict == "missed"]
    metric = report.metric
    if metric is None or settings.max_drop is None:
        return missed
    allowed, expected = settings.allowed_drop(metric.original), expected_drop(metric)
    if metric.drop <= allowed < expected:
        missed.append(
            f"the metric dropped by {metric.drop:.4g}, but {metric.items} items are so few that "
            f"{expected:.4g} must be expected of others; allowed is {allowed:.4g}"
        )
    return missed


def strain(trial: Trial, settings: Settings, metric: float | None) -> float:
    """Return what a trial lost over what it may lose: above 1 it misses the floor.

    Args:
        trial: The trial.
        settings: They have the floor.
        metric: The original's task metric; None where the floor is about rows that agree.
    """
    strains = [0.0]
    if settings.max_drop is not None and trial.expected_drop is not None:
        allowed = settings.allowed_drop(1.0 if metric is None else metric)
        lost = trial.expected_drop
        strains.append(lost / allowed if allowed else inf * (lost > 0))
    if settings.min_snr is not None and trial.snr_db is not None:
        strains.append(10 ** ((settings.min_snr - trial.snr_db) / 10))
    return max(strains)


def floor_in_words(settings: Settings, metric: float | None) -> str:
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
    return " and ".join(floors)
