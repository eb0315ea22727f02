"""Which part of an activation's range its codes are spent on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from onnxcomp_passes.quantize.grids import SMALLEST_SCALE, ActivationGrid

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from onnxcomp.statistics import Range

    Floats = NDArray[np.float64]

SENTINEL = 1e18
"""Nothing that is computed is as large: it stands for infinity in a mask."""

NEVER = 1e-12
"""The share of what a code does not stand for."""

SHARES = np.geomspace(1.0, 0.05, 40)
"""Parts of the full range that are tried."""


def reach(observed: Range) -> float:
    """Return the largest magnitude of what counts."""
    low, high = minmax(observed)
    return max(-low, high)


def bulk(observed: Range) -> tuple[Floats, NDArray[np.int64]]:
    """Return the values of an activation that count, ascending, and how often each came.

    What stands for infinity in a mask, such as -3.4e38, does not.
    """
    values, counts = observed.points()
    known = np.abs(values) < SENTINEL
    values, counts = values[known], counts[known]
    return np.clip(values, observed.least, observed.most), counts


def minmax(observed: Range) -> tuple[float, float]:
    """Return the extremes of what counts."""
    values, _ = bulk(observed)
    return (float(values[0]), float(values[-1])) if len(values) else (0.0, 0.0)


def percentile(observed: Range, share: float) -> tuple[float, float]:
    """Return the range that leaves out so many per cent in both tails together."""
    values, counts = bulk(observed)
    if not len(values):
        return 0.0, 0.0
    below = np.cumsum(counts) / counts.sum()
    tail = (1 - share / 100) / 2
    places = np.searchsorted(below, [tail, 1 - tail]).clip(0, len(values) - 1)
    low, high = values[places]
    return float(low), float(high)


def least_squares(observed: Range, dtype: np.dtype[Any]) -> tuple[float, float]:
    """Return the range with the least mean squared error of rounding."""
    values, counts = bulk(observed)
    best, least = (0.0, 0.0), np.inf
    for low, high in _shrunk(*minmax(observed)):
        grid = ActivationGrid.between(low, high, dtype)
        error = float(counts @ np.square(grid.rounded(values) - values))
        if error < least:
            best, least = (low, high), error
    return best


def least_divergence(observed: Range, dtype: np.dtype[Any]) -> tuple[float, float]:
    """Return the range whose codes have a distribution that is closest to the values'.

    Method: Migacz, "8-bit inference with TensorRT", 2017 (Kullback-Leibler divergence).
    """
    values, counts = bulk(observed)
    if not len(values):
        return 0.0, 0.0
    shares = counts / counts.sum()
    codes = int(np.iinfo(dtype).max)
    best, least = (0.0, 0.0), np.inf
    for low, high in _shrunk(*minmax(observed)):
        step = max(high - low, SMALLEST_SCALE) / codes
        place = np.clip(np.rint((values - low) / step), 0, codes).astype(np.int64)
        is_inside = (values >= low) & (values <= high)
        # Codes stand for what they round, evenly spread over it, and not for what is cut off.
        coded = np.bincount(place, np.where(is_inside, shares, 0.0), codes + 1)
        members = np.bincount(place, minlength=codes + 1)
        likely = np.maximum(coded[place] / members[place], NEVER)
        divergence = float(np.sum(shares * np.log(shares / likely)))
        if divergence < least:
            best, least = (low, high), divergence
    return best


def _shrunk(low: float, high: float) -> Iterator[tuple[float, float]]:
    """Yield parts of a range: cut at both ends, or at the longer one only."""
    for share in SHARES:
        yield low * share, high * share
    for share in SHARES[1:]:
        reach = share * max(-low, high)
        yield max(low, -reach), min(high, reach)
