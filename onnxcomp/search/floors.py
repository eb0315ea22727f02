"""How near to the floor a trial is."""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from onnxcomp.api import Settings
    from onnxcomp.report import Trial


def strain(trial: Trial, settings: Settings, metric: float | None) -> float:
    """Return what a trial lost over what it may lose: above 1 it misses the floor.

    Args:
        trial: The trial.
        settings: They have the floor.
        metric: The original's task metric; None where the floor is about rows that agree.
    """
    strains = [0.0]
    if settings.max_drop is not None and trial.drop is not None:
        allowed = settings.allowed_drop(1.0 if metric is None else metric)
        strains.append(trial.drop / allowed if allowed else inf * (trial.drop > 0))
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
