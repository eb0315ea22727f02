"""How near to the floor a candidate is."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING

from onnxcomp.api import floors_of
from onnxcomp.runtime.comparison import worst_snr_db
from onnxcomp.search.outputs import floors_in_words

if TYPE_CHECKING:
    from collections.abc import Sequence

    from onnxcomp.api import Floor, Limits, OutputFloor, Settings
    from onnxcomp.report import Report


@dataclass(frozen=True)
class Loss:
    """What a candidate lost, as far as there are floors.

    Args:
        strain: The most that it lost of what it may lose: above 1 it misses a floor; infinite
            where that cannot be told.
        missed: By how much it misses each floor that it misses, a line each.
        drop: By how much the metric dropped, or the largest share of rows that disagree; None
            where no floor is about either.
        snr_db: The lowest SNR of the float outputs that are judged, in dB; None without any.
    """

    strain: float
    missed: tuple[str, ...]
    drop: float | None
    snr_db: float | None


def loss_of(report: Report, settings: Settings, outputs: Sequence[OutputFloor] = ()) -> Loss:
    """Return what a candidate lost, as far as there are floors.

    Args:
        report: What was measured of it.
        settings: They have the floors.
        outputs: What single outputs must not miss besides.
    """
    floors = floors_of(report, settings, outputs=outputs)
    drops = [each.measured for each in floors if each.option == "max_drop"]
    left_out = {each.output for each in outputs if each.kind == "state"}
    compared = (output for each in report.validation for output in each.outputs)
    return Loss(
        strain=max(map(_strain, floors), default=0.0),
        missed=tuple(each.text for each in floors if each.verdict == "missed"),
        drop=max((each for each in drops if each is not None), default=None),
        snr_db=worst_snr_db(each for each in compared if each.name not in left_out),
    )


def _strain(floor: Floor) -> float:
    """Return what was lost over what may be lost; of noise, by its energy."""
    lost = floor.measured
    if lost is None:
        return inf
    if floor.option == "min_snr":
        return inf if lost == -inf else 10 ** ((floor.allowed - lost) / 10)
    if lost <= 0:
        return 0.0
    return lost / floor.allowed if floor.allowed else inf


def floor_in_words(
    settings: Settings, limits: Limits, metric: float | None, outputs: Sequence[OutputFloor] = ()
) -> str:
    """Return what a result must not miss, in one line."""
    floors = [floors_in_words(outputs)] if outputs else []
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
