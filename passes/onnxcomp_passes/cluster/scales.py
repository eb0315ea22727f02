"""Scales of output channels: where they start, how they are fitted, how they are stored."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from onnxcomp_passes.cluster.blocks import row_blocks
from onnxcomp_passes.cluster.histogram import Histogram
from onnxcomp_passes.cluster.kmeans import assign

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

CAST_BYTES = 64
"""Bytes of the operator that widens float16 scales."""

NEGLIGIBLE = 2.0**-24
"""Root mean square of a channel, relative to the largest, that counts as nothing."""


def root_mean_square(values: NDArray[Any], axis: int | None) -> Floats:
    """Root mean square per channel of ``axis``, or of all, so shaped that it broadcasts.

    A channel that vanishes beside the largest gives 0, and so will its decoded weights be: there
    are models with such channels, and dividing by them would pass the range of float32.
    """
    shape = [1] * values.ndim
    if axis is not None:
        shape[axis] = values.shape[axis]
    total = np.zeros(shape)
    for _, block, of_block in row_blocks(values, total):
        square = np.square(block, dtype=np.float64)
        np.add(of_block, square.sum(axis=_axes_of(total), keepdims=True), out=of_block)
    scale = np.sqrt(total * (total.size / values.size))
    return np.where(scale > scale.max() * NEGLIGIBLE, scale, 0.0)


def scaled_histogram(values: NDArray[Any], scale: Floats) -> Histogram:
    """Count the values divided by their scales, each for the square of its scale."""
    histogram = Histogram()
    for _, block, of_block in row_blocks(values, scale):
        scaled = block / divisor(of_block, block.dtype)
        histogram.add(scaled, np.square(of_block))
    return histogram


def fit_scale(values: NDArray[Any], scale: Floats, decoded: Floats) -> Floats:
    """Fit the scales by least squares to the codes that the old ones give."""
    products, squares = np.zeros_like(scale), np.zeros_like(scale)
    entries = decoded.astype(np.float32)
    for part, block, of_block in row_blocks(values, scale):
        chosen = entries[assign(block / divisor(of_block, block.dtype), decoded)]
        rows = part if len(scale) > 1 else slice(None)
        axes = _axes_of(scale)
        products[rows] += np.sum(chosen * block, axis=axes, keepdims=True, dtype=np.float64)
        squares[rows] += np.sum(chosen * chosen, axis=axes, keepdims=True, dtype=np.float64)
    fits = (squares > 0) & (products > 0) & (scale > 0)
    return np.where(fits, np.divide(products, squares, where=fits, out=scale.copy()), scale)


def stored_dtype(scale: Floats, computed: np.dtype[Any]) -> np.dtype[Any]:
    """Return float16 where it holds every scale with all its digits and saves bytes."""
    half = np.finfo(np.float16)
    used = scale[scale > 0]
    holds = bool(np.all((used >= half.smallest_normal) & (used <= half.max)))
    saves = scale.size * half.dtype.itemsize > CAST_BYTES
    return half.dtype if holds and saves and computed == np.float32 else computed


def computed_dtype(values: NDArray[Any]) -> np.dtype[Any]:
    """Return the type in which a decoding with scales computes."""
    return np.dtype(np.float64 if values.dtype == np.float64 else np.float32)


def divisor(scale: NDArray[Any], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Return scales by which weights can be divided: 1 where they are 0."""
    return np.where(scale > 0, scale, 1.0).astype(dtype)


def _axes_of(scale: Floats) -> tuple[int, ...]:
    """Return the axes along which a broadcast scale is one."""
    return tuple(axis for axis, size in enumerate(scale.shape) if size == 1)
