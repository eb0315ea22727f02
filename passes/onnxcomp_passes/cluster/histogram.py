"""Weighted histograms of tensor values, built chunk by chunk in bounded memory."""

from collections.abc import Iterator
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]

DISTINCT_LIMIT = 65_536
"""Up to so many distinct values a histogram keeps every value as it is."""

KEY_SHIFT = 13
"""Low bits of a float32 that do not count for its bin: 10 of its 23 mantissa bits do."""

BIN_COUNT = 1 << (32 - KEY_SHIFT)
CHUNK = 65_536
_SIGN = BIN_COUNT >> 1
_INFINITE = 255 << (23 - KEY_SHIFT)
_LARGEST = float(np.finfo(np.float32).max)
_NOT_FINITE = "values are not all finite float32 numbers"


class Histogram:
    """Sum of weights per value, exact for few distinct values and per narrow bin for many.

    With at most ``DISTINCT_LIMIT`` distinct values (hence for most float16 and bfloat16
    data) the histogram is exact. Beyond that, a bin holds the float32 values that share
    sign, exponent and the first 10 mantissa bits (relative width 2**-10 or less) and keeps
    their exact weighted mean, so that means and sums over whole bins lose nothing; only float32
    numbers below 1.2e-41 in magnitude are then taken as zero, and float64 values are rounded to
    float32. Memory is at most 16 MiB beside the chunk at hand, whatever was added.
    """

    def __init__(self) -> None:
        self._points: Floats = np.empty(0)
        self._weights: Floats = np.empty(0)
        self._bins: Floats | None = None

    def add(self, values: NDArray[Any], weights: ArrayLike = 1.0) -> None:
        """Count all elements of a tensor.

        Args:
            values: Any shape and strides, memory-mapped or not; float16, bfloat16, float32 or
                float64.
            weights: What an element counts for, not negative; broadcast to the shape of
                `values`, so ``scale[:, None] ** 2`` weights every row.

        Raises:
            ValueError: A value is not finite or beyond the range of float32 (the histogram is
                then of no more use), or the weights do not broadcast.
            TypeError: The values are not of one of the four types.
        """
        kind = values.dtype.name
        if kind in {"float16", "bfloat16"}:
            self._add_patterns(values, weights)
        elif kind in {"float32", "float64"}:
            for chunk, chunk_weights in _chunks(values, weights):
                if self._bins is None:
                    self._absorb(*_distinct(chunk.astype(np.float64), chunk_weights))
                else:
                    _count(self._bins, chunk, chunk_weights)
            self._check_bins()
        else:
            raise TypeError(f"values of type {kind} cannot be clustered")

    @property
    def binned(self) -> bool:
        """Whether there were too many distinct values to keep each by itself."""
        return self._bins is not None

    def merge(self, other: "Histogram") -> None:
        """Add everything that another histogram has counted."""
        if other.binned:
            self._spill()
        self._absorb(*other.points())

    def points(self) -> tuple[Floats, Floats]:
        """Return the points in ascending order, shape (P,), and their weights, shape (P,).

        A point is a distinct value or the mean of a bin; points without weight are left out.
        Zero, if present, is exactly 0.0.
        """
        if self._bins is None:
            points, weights = self._points, self._weights
        else:
            weights, sums = self._bins.copy()
            weights[0] += weights[_SIGN]
            weights[_SIGN] = sums[0] = 0.0
            filled = np.flatnonzero(weights)
            points, weights = sums[filled] / weights[filled], weights[filled]
            order = np.argsort(points)
            points, weights = points[order], weights[order]
        return points[weights > 0.0], weights[weights > 0.0]

    def _add_patterns(self, values: NDArray[Any], weights: ArrayLike) -> None:
        totals = np.zeros(1 << 16)
        for chunk, chunk_weights in _chunks(values.view(np.uint16), weights):
            np.add.at(totals, chunk.astype(np.intp), chunk_weights)
        patterns = np.flatnonzero(totals).astype(np.uint16)
        with np.errstate(invalid="ignore"):
            points = patterns.view(values.dtype).astype(np.float64)
        self._absorb(*_distinct(points, totals[patterns]))

    def _absorb(self, points: Floats, weights: Floats) -> None:
        if self._bins is None:
            self._points, self._weights = _distinct(
                np.concatenate([self._points, points]), np.concatenate([self._weights, weights])
            )
            if self._points.size > DISTINCT_LIMIT:
                self._spill()
        else:
            _count(self._bins, points, weights)

    def _spill(self) -> Floats:
        if self._bins is None:
            self._bins = np.zeros((2, BIN_COUNT))
            _count(self._bins, self._points, self._weights)
            self._points = self._weights = np.empty(0)
        return self._bins

    def _check_bins(self) -> None:
        if self._bins is None:
            return
        sums = self._bins[1]
        # A sum is NaN or infinite in these bins even where the weight is zero.
        if sums[_INFINITE:_SIGN].any() or sums[_SIGN + _INFINITE :].any():
            raise ValueError(_NOT_FINITE)


def bin_keys(values: NDArray[np.float32]) -> NDArray[np.intp]:
    """Return the bin of each value, shape as `values`: its top bits as an index."""
    return np.right_shift(values.view(np.uint32), KEY_SHIFT, dtype=np.intp, casting="unsafe")


def bin_codes(limits: NDArray[np.float32], unsure: int) -> NDArray[np.uint8]:
    """Count for each bin how many limits lie below it.

    Args:
        limits: Ascending, shape (up to 255,).
        unsure: What stands for the bins that hold a limit themselves.

    Returns:
        The counts by bin key, shape (BIN_COUNT,).
    """
    keys = bin_keys(limits)
    # Bins in the order of their values: the negative ones downwards, then the others.
    ranks = np.where(keys < _SIGN, _SIGN + keys, BIN_COUNT - 1 - keys)
    spans = np.diff(ranks, prepend=0, append=BIN_COUNT)
    ranked = np.repeat(np.arange(spans.size, dtype=np.uint8), spans)
    ranked[ranks] = unsure
    return np.concatenate([ranked[_SIGN:], ranked[:_SIGN][::-1]])


class Moments(NamedTuple):
    """Sums of weights, weights * points and weights * points**2 before each point, (P + 1,).

    They count from somewhere in the middle; only differences matter.
    """

    weights: Floats
    first: Floats
    second: Floats

    @classmethod
    def of(cls, points: Floats, weights: Floats) -> Self:
        """Sum up ascending points, shape (P,), with their weights, shape (P,)."""
        # Sums run outwards from the middle, lest outliers on the left cost precision everywhere.
        middle = int(np.searchsorted(np.cumsum(weights), 0.5 * np.sum(weights)))
        sums = []
        for terms in (weights, weights * points, weights * points * points):
            left = -np.cumsum(terms[:middle][::-1])[::-1]
            sums.append(np.concatenate([left, [0.0], np.cumsum(terms[middle:])]))
        return cls(*sums)

    def at(self, places: NDArray[np.intp]) -> "Moments":
        """Return the sums before some of the points only, shape of `places`."""
        return Moments(self.weights[places], self.first[places], self.second[places])

    def mirrored(self) -> "Moments":
        """Return the moments of the negated points in ascending order."""
        return Moments(-self.weights[::-1], self.first[::-1], -self.second[::-1])


def _count(bins: Floats, values: NDArray[Any], weights: Floats) -> None:
    with np.errstate(over="ignore", invalid="ignore"):
        singles = values.astype(np.float32, copy=False)
        keys = bin_keys(singles)
        np.add.at(bins[0], keys, weights)
        np.add.at(bins[1], keys, weights * values)


def _distinct(values: Floats, weights: Floats) -> tuple[Floats, Floats]:
    order = np.argsort(values)
    values, weights = values[order], weights[order]
    # NaN is sorted to the end and fails every comparison.
    if not np.all(np.abs(values[[0, -1]] if values.size else values) <= _LARGEST):
        raise ValueError(_NOT_FINITE)
    starts = np.flatnonzero(np.append(True, values[1:] != values[:-1])[: values.size])
    return values[starts] + 0.0, np.add.reduceat(weights, starts) if starts.size else weights


def _chunks(
    values: NDArray[Any], weights: ArrayLike
) -> Iterator[tuple[NDArray[Any], NDArray[np.float64]]]:
    if np.broadcast_shapes(values.shape, np.shape(weights)) != values.shape:
        raise ValueError(f"weights {np.shape(weights)} do not broadcast to {values.shape}")
    yield from np.nditer(
        [values, np.asarray(weights, np.float64)],
        flags=["external_loop", "buffered", "zerosize_ok"],
        op_flags=[["readonly"], ["readonly"]],
        buffersize=CHUNK,
    )
