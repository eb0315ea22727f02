"""From a weight to codes and a codebook, in each of the granularities."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import ml_dtypes
import numpy as np

from onnxcomp.stores import Codebook, store_codes
from onnxcomp_passes.cluster.blocks import BLOCK, flat_blocks, has_zero, is_finite, row_blocks
from onnxcomp_passes.cluster.histogram import Histogram
from onnxcomp_passes.cluster.kmeans import assign, cluster_points
from onnxcomp_passes.cluster.scales import (
    computed_dtype,
    divisor,
    fit_scale,
    root_mean_square,
    scaled_histogram,
    stored_dtype,
)
from onnxcomp_passes.cluster.vectors import assign_vectors, cluster_vectors

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from numpy.typing import NDArray

    from onnxcomp.graph import Weight
    from onnxcomp.stores import CodebookStore, SparseStore

    Floats = NDArray[np.float64]

EntryType = Literal["float32", "float16", "int8"]

LOWEST_OPSET = 7
"""The operators of a decoding mean the same from this opset on."""

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

    def decoded(self, values: NDArray[Any]) -> NDArray[Any]:
        """Return what the coding of a weight stands for."""
        return self.store(values, LOWEST_OPSET, ()).load()

    def store(
        self, values: NDArray[Any], opset: int, present: Collection[tuple[object, ...]]
    ) -> CodebookStore | SparseStore:
        """Return the cheapest store at this opset beside the tables that are present already."""
        return store_codes(
            self.codes,
            self.codebook,
            shape=values.shape,
            dtype=values.dtype,
            opset=opset,
            axis=self.axis,
            scale=self.scale,
            present=present,
        )


def code_exactly(values: NDArray[Any], clusters: int) -> Coding | None:
    """Code a weight that has no more distinct values than clusters; None if it has more."""
    distinct = np.unique(values.reshape(-1)[:BLOCK].astype(np.float64))
    for block in flat_blocks(values):
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
    book = _fit(histogram, clusters, keep_zero=has_zero(values))
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
    keep_zero = has_zero(values)
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
    keep_zero = has_zero(values)
    scale = root_mean_square(values, axis)
    computed = computed_dtype(values)
    for _ in range(SCALE_ROUNDS):
        if book is None:
            fitted = _fit(scaled_histogram(values, scale), clusters, keep_zero=keep_zero)
        else:
            fitted = book
        codebook = quantize_entries(fitted[:, None], kind, computed)
        decoded = _decoded(codebook, computed)[:, 0]
        scale = fit_scale(values, scale, decoded)
    stored = scale.astype(stored_dtype(scale, computed))
    codes = np.empty(values.shape, np.uint8)
    for part, block, of_block in row_blocks(values, divisor(stored, computed)):
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
    computed = values.dtype if axis is None else computed_dtype(values)
    scale = None
    if axis is not None:
        exact_scale = root_mean_square(values, axis)
        scale = exact_scale.astype(stored_dtype(exact_scale, computed))
        values = values / divisor(scale, computed)
    vectors = values.reshape(-1, width)
    keep_zero = bool(np.any(~vectors.any(axis=1)))
    book = cluster_vectors(vectors, entries, seed=seed, keep_zero=keep_zero)
    codebook = quantize_entries(book.astype(np.float64), kind, computed)
    decoded = _decoded(codebook, computed).astype(np.float32)
    return Coding(assign_vectors(vectors, decoded), codebook, scale=scale)


def common_codebook(
    weights: Iterable[Weight], clusters: int, *, by_channel: bool
) -> Floats | None:
    """Fit one codebook to several weights, each divided by the scales that it will have.

    Args:
        weights: The weights; those that are not finite do not count.
        clusters: Entries of the codebook.
        by_channel: Whether each output channel has a scale, or each weight one.

    Returns:
        The entries; None where there is nothing to fit.
    """
    histogram = Histogram()
    for weight in weights:
        values = weight.load()
        if is_finite(values):
            axis = weight.output_axis if by_channel else None
            histogram.merge(scaled_histogram(values, root_mean_square(values, axis)))
    points, counts = histogram.points()
    return cluster_points(points, counts, clusters, keep_zero=True) if len(points) else None


def quantize_entries(
    entries: Floats, kind: EntryType, computed: np.dtype[Any], groups: int = 1
) -> Codebook:
    """Round the entries of codebooks to the type in which they are stored.

    Args:
        entries: Shape (groups * entries a group, width).
        kind: The wished type; float16 is taken only where it holds the entries, and no type that
            is wider than ``computed``.
        computed: The type in which the decoding looks entries up.
        groups: How many codebooks they are.
    """
    if kind == "int8":
        largest = float(np.abs(entries).max())
        unit = np.array(largest / 127 if largest > 0 else 1, np.float32)
        return Codebook(np.rint(entries / unit).astype(np.int8), groups, unit)
    wished = np.dtype(kind) if kind != "float16" or _half_holds(entries) else computed
    return _stored(
        entries.astype(min(wished, computed, key=lambda each: each.itemsize)), computed, groups
    )


def _half_holds(entries: Floats) -> bool:
    """Whether float16 rounds entries no worse than by its precision, relative to the largest."""
    half, largest = np.finfo(np.float16), np.abs(entries).max()
    return bool(largest == 0 or half.smallest_normal <= largest <= half.max)


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
