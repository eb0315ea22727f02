"""From a weight to codes and a codebook, in each of the granularities."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import ml_dtypes
import numpy as np

from onnxcomp.stores import Codebook, CodebookStore, store_codes
from passes.cluster.histogram import Histogram
from passes.cluster.kmeans import assign, cluster_points
from passes.cluster.vectors import assign_vectors, cluster_vectors

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

EntryType = Literal["float32", "float16", "int8"]

BLOCK = 1 << 22
"""Elements that are worked on at a time."""

CAST_BYTES = 64
"""Bytes of the operator that widens float16 scales."""

NEGLIGIBLE = 2.0**-24
"""Root mean square of a channel, relative to the largest, that counts as nothing."""

SCALE_ROUNDS = 2
"""Times that codebook and scales are fitted in turn."""


@dataclass(frozen=True, eq=False)
class Coding:
    """A weight as codes.

    Args:
        codes: In the order of the weight with ``axis`` in front; shape (weights / width,).
        codebook: What they stand for.
        axis: The axis whose blocks are the codebook's groups.
        scale: Multiplied with the decoded values; broadcast to the weight.
    """

    codes: NDArray[np.uint8]
    codebook: Codebook
    axis: int = 0
    scale: NDArray[Any] | None = None

    def store(self, values: NDArray[Any], opset: int) -> CodebookStore:
        """Return the cheapest store of the codes at this opset."""
        return store_codes(
            self.codes,
            self.codebook,
            shape=values.shape,
            dtype=values.dtype,
            opset=opset,
            axis=self.axis,
            scale=self.scale,
        )


def require_finite(values: NDArray[Any]) -> None:
    """Raise a ValueError where a weight holds a NaN or an infinity."""
    if not all(bool(np.all(np.isfinite(block))) for block in _flat_blocks(values)):
        raise ValueError("holds NaN or infinity")


def code_exactly(values: NDArray[Any], clusters: int) -> Coding | None:
    """Code a weight that has no more distinct values than clusters; None if it has more."""
    distinct = np.unique(values.reshape(-1)[:BLOCK].astype(np.float64))
    for block in _flat_blocks(values):
        if len(distinct) > clusters:
            return None
        distinct = np.union1d(distinct, block.astype(np.float64))
    if len(distinct) > clusters:
        return None
    entries = distinct.astype(values.dtype)
    codes = assign(values, distinct)
    return Coding(codes.reshape(-1), _stored(entries[:, None], values.dtype))


def code_tensor(values: NDArray[Any], clusters: int, kind: EntryType) -> Coding:
    """Code a weight with one codebook, the best that there is."""
    histogram = Histogram()
    histogram.add(values)
    book = _fit(histogram, clusters, keep_zero=_has_zero(values))
    codebook = quantize_entries(book[:, None], kind, values.dtype)
    codes = assign(values, _decoded(codebook, values.dtype)[:, 0])
    return Coding(codes.reshape(-1), codebook)


def code_groups(
    values: NDArray[Any], clusters: int, kind: EntryType, axis: int, group_size: int
) -> Coding:
    """Code a weight with one codebook for every ``group_size`` output channels.

    Where the channels are no multiple of it, the largest smaller divisor is taken.
    """
    channels = values.shape[axis]
    size = next(each for each in range(min(group_size, channels), 0, -1) if channels % each == 0)
    rows = np.moveaxis(values, axis, 0).reshape(channels // size, -1)
    keep_zero = _has_zero(values)
    books = np.empty((len(rows), clusters))
    for row, book in zip(rows, books, strict=True):
        histogram = Histogram()
        histogram.add(row)
        fitted = _fit(histogram, clusters, keep_zero=keep_zero)
        book[: len(fitted)] = fitted
        book[len(fitted) :] = fitted[-1]
    codebook = quantize_entries(books.reshape(-1, 1), kind, values.dtype, groups=len(rows))
    decoded = _decoded(codebook, values.dtype).reshape(books.shape)
    codes = [assign(row, book) for row, book in zip(rows, decoded, strict=True)]
    return Coding(np.concatenate(codes), codebook, axis)


def code_scaled(
    values: NDArray[Any],
    clusters: int,
    kind: EntryType,
    axis: int | None,
    book: Floats | None = None,
) -> Coding:
    """Code a weight with one codebook times a scale per output channel.

    Scales start as root mean squares; codebook and least-squares scales are then fitted in turn.

    Args:
        values: The weight.
        clusters: Entries of the codebook.
        kind: Type in which they are stored.
        axis: The axis of the output channels; None for one scale.
        book: A codebook that is given, so that only the scales are fitted.
    """
    keep_zero = _has_zero(values)
    scale = root_mean_square(values, axis)
    computed = _computed(values)
    for _ in range(SCALE_ROUNDS):
        if book is None:
            fitted = _fit(scaled_histogram(values, scale), clusters, keep_zero=keep_zero)
        else:
            fitted = book
        codebook = quantize_entries(fitted[:, None], kind, computed)
        decoded = _decoded(codebook, computed)[:, 0]
        scale = _fit_scale(values, scale, decoded)
    stored = scale.astype(_scale_dtype(scale, computed))
    codes = np.empty(values.shape, np.uint8)
    for part, block, of_block in _blocks(values, divisor(stored, computed)):
        codes[part] = assign(block / of_block, decoded)
    return Coding(codes.reshape(-1), codebook, scale=stored)


def code_vectors(
    values: NDArray[Any],
    entries: int,
    width: int,
    kind: EntryType,
    *,
    axis: int | None,
    seed: int,
) -> Coding:
    """Code ``width`` neighbouring weights at a time with one codebook of vectors.

    Args:
        values: The weight.
        entries: Vectors of the codebook.
        width: Weights that one of them stands for.
        kind: Type in which they are stored.
        axis: The axis of the output channels, whose root mean squares become scales; None for
            no scale.
        seed: Where the search for a codebook starts.
    """
    computed = values.dtype if axis is None else _computed(values)
    scale = None
    if axis is not None:
        exact_scale = root_mean_square(values, axis)
        scale = exact_scale.astype(_scale_dtype(exact_scale, computed))
        values = values / divisor(scale, computed)
    vectors = values.reshape(-1, width)
    keep_zero = bool(np.any(~vectors.any(axis=1)))
    book = cluster_vectors(vectors, entries, seed=seed, keep_zero=keep_zero)
    codebook = quantize_entries(book.astype(np.float64), kind, computed)
    decoded = _decoded(codebook, computed).astype(np.float32)
    return Coding(assign_vectors(vectors, decoded), codebook, scale=scale)


def scaled_histogram(values: NDArray[Any], scale: Floats) -> Histogram:
    """Count the values divided by their scales, each for the square of its scale."""
    histogram = Histogram()
    for _, block, of_block in _blocks(values, scale):
        scaled = block / divisor(of_block, block.dtype)
        histogram.add(scaled, np.square(of_block))
    return histogram


def divisor(scale: NDArray[Any], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Return scales by which weights can be divided: 1 where they are 0."""
    return np.where(scale > 0, scale, 1.0).astype(dtype)


def root_mean_square(values: NDArray[Any], axis: int | None) -> Floats:
    """Root mean square per channel of ``axis``, or of all, so shaped that it broadcasts.

    A channel that vanishes beside the largest gives 0, and so will its decoded weights be: there
    are models with such channels, and dividing by them would pass the range of float32.
    """
    shape = [1] * values.ndim
    if axis is not None:
        shape[axis] = values.shape[axis]
    total = np.zeros(shape)
    for _, block, of_block in _blocks(values, total):
        square = np.square(block, dtype=np.float64)
        np.add(of_block, square.sum(axis=_axes_of(total), keepdims=True), out=of_block)
    scale = np.sqrt(total * (total.size / values.size))
    return np.where(scale > scale.max() * NEGLIGIBLE, scale, 0.0)


def relative_error(values: NDArray[Any], decoded: NDArray[Any]) -> float:
    """Relative Frobenius error of a decoded weight, without unit."""
    wrong, total = 0.0, 0.0
    for one, other in zip(_flat_blocks(values), _flat_blocks(decoded), strict=True):
        exact = one.astype(np.float64)
        wrong += float(np.sum(np.square(exact - other)))
        total += float(np.sum(np.square(exact)))
    return float(np.sqrt(wrong / total)) if total else 0.0


def quantize_entries(
    entries: Floats, kind: EntryType, computed: np.dtype[Any], groups: int = 1
) -> Codebook:
    """Round the entries of codebooks to the type in which they are stored.

    Args:
        entries: Shape (groups * entries a group, width).
        kind: The wished type; no wider than ``computed``.
        computed: The type in which the decoding looks entries up.
        groups: How many codebooks they are.
    """
    if kind == "int8":
        largest = float(np.abs(entries).max())
        unit = np.array(largest / 127 if largest > 0 else 1, np.float32)
        return Codebook(np.rint(entries / unit).astype(np.int8), groups, unit)
    wished = np.dtype(kind)
    return _stored(
        entries.astype(min(wished, computed, key=lambda each: each.itemsize)), computed, groups
    )


def _stored(entries: NDArray[Any], computed: np.dtype[Any], groups: int = 1) -> Codebook:
    # ONNX Runtime looks bfloat16 up in no operator; float32 holds all its values.
    is_bfloat16 = ml_dtypes.bfloat16 in {entries.dtype, computed}
    return Codebook(entries.astype(np.float32) if is_bfloat16 else entries, groups)


def _decoded(codebook: Codebook, computed: np.dtype[Any]) -> Floats:
    """Return the entries that decoding gives, so that codes are chosen for those."""
    return codebook.values(computed).astype(np.float64)


def _fit(histogram: Histogram, clusters: int, *, keep_zero: bool) -> Floats:
    points, weights = histogram.points()
    return cluster_points(points, weights, clusters, keep_zero=keep_zero)


def _fit_scale(values: NDArray[Any], scale: Floats, decoded: Floats) -> Floats:
    """Fit the scales by least squares to the codes that the old ones give."""
    products, squares = np.zeros_like(scale), np.zeros_like(scale)
    entries = decoded.astype(np.float32)
    for part, block, of_block in _blocks(values, scale):
        chosen = entries[assign(block / divisor(of_block, block.dtype), decoded)]
        rows = part if len(scale) > 1 else slice(None)
        axes = _axes_of(scale)
        products[rows] += np.sum(chosen * block, axis=axes, keepdims=True, dtype=np.float64)
        squares[rows] += np.sum(chosen * chosen, axis=axes, keepdims=True, dtype=np.float64)
    fits = (squares > 0) & (products > 0) & (scale > 0)
    return np.where(fits, np.divide(products, squares, where=fits, out=scale.copy()), scale)


def _scale_dtype(scale: Floats, computed: np.dtype[Any]) -> np.dtype[Any]:
    """Return float16 where it holds every scale with all its digits and saves bytes."""
    half = np.finfo(np.float16)
    used = scale[scale > 0]
    holds = bool(np.all((used >= half.smallest_normal) & (used <= half.max)))
    saves = scale.size * half.dtype.itemsize > CAST_BYTES
    return half.dtype if holds and saves and computed == np.float32 else computed


def _computed(values: NDArray[Any]) -> np.dtype[Any]:
    """Return the type in which a decoding with scales computes."""
    return np.dtype(np.float64 if values.dtype == np.float64 else np.float32)


def _has_zero(values: NDArray[Any]) -> bool:
    return any(bool(np.any(block == 0)) for block in _flat_blocks(values))


def _axes_of(scale: Floats) -> tuple[int, ...]:
    """Return the axes along which a broadcast scale is one."""
    return tuple(axis for axis, size in enumerate(scale.shape) if size == 1)


def _flat_blocks(values: NDArray[Any]) -> Iterator[NDArray[Any]]:
    flat = values.reshape(-1)
    for start in range(0, len(flat), BLOCK):
        yield flat[start : start + BLOCK]


def _blocks(
    values: NDArray[Any], scale: NDArray[Any]
) -> Iterator[tuple[slice, NDArray[Any], NDArray[Any]]]:
    """Yield blocks of rows as float32 or float64, with what belongs to them of the scale."""
    rows = max(1, BLOCK // max(1, values[0].size))
    wide = values.dtype if values.dtype == np.float64 else np.dtype(np.float32)
    for start in range(0, len(values), rows):
        part = slice(start, start + rows)
        yield (
            part,
            values[part].astype(wide, copy=False),
            scale[part if len(scale) > 1 else slice(None)],
        )
