"""Choosing how codes are stored: the form that adds the fewest bytes to the file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from onnxcomp.stores.affine import AffineStore
from onnxcomp.stores.codebook import NATIVE_TYPES, CodebookStore
from onnxcomp.stores.packing import plane_bases, split_planes
from onnxcomp.stores.sparse import MOST_ELEMENTS, SINCE_OPSET, Places, SparseStore, computed_dtype

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from numpy.typing import NDArray

    from onnxcomp.stores.entries import Codebook

Dense = TypeVar("Dense", AffineStore, CodebookStore)

RADIX_BASES = (2, 3, 4, 6, 16, 256)
"""The largest bases of which 8, 5, 4, 3, 2 and 1 digits fit a byte."""


def store_codes(
    codes: NDArray[np.uint8],
    codebook: Codebook,
    *,
    shape: tuple[int, ...],
    dtype: np.dtype[Any],
    opset: int,
    axis: int = 0,
    scale: NDArray[Any] | None = None,
    present: Collection[tuple[object, ...]] = (),
) -> CodebookStore | SparseStore:
    """Store a weight as codes in the form that adds the fewest bytes at this opset.

    Where many codes stand for zero, that is the places of the others and only these codes.

    Args:
        codes: Shape (weights / codebook.width,), as the weight is with ``axis`` in front.
        codebook: What the codes stand for; with several groups, codes count from 0 in each.
        shape: The weight's shape.
        dtype: The weight's element type.
        opset: The model's opset, 7 or later.
        axis: The axis whose blocks are the codebook's groups; 0 where there is one group.
        scale: float, multiplied with the decoded values; of as many dimensions as the weight, and
            broadcast to its shape with ``axis`` in front.
        present: Tables of other stores (`CodebookStore.tables`), which cost nothing again.
    """
    whole = _smallest_packing(codes, codebook, shape, dtype, opset, axis, scale, present)
    zeros = np.flatnonzero(~codebook.values(np.dtype(np.float64)).any(axis=1))
    if codebook.width > 1 or codebook.groups > 1 or not len(zeros):
        return whole
    computed = computed_dtype(dtype, scale)

    def sparse(places: Places) -> SparseStore:
        part, size = codes[places.stored], (len(places.stored),)
        packed = _smallest_packing(part, codebook, size, computed, opset, 0, None, present)
        return SparseStore(shape, dtype, places.packed, places.base, packed, opset, axis, scale)

    return _smallest(whole, codes != zeros[0], sparse, present)


def leave_out_zeros(
    store: AffineStore, present: Collection[tuple[object, ...]] = ()
) -> AffineStore | SparseStore:
    """Return a store of the same weight without its zeros, where that adds fewer bytes.

    Args:
        store: A store of the Cast form; one of floats without a scale is a plain weight.
        present: Tables of other stores, which cost nothing again.
    """
    if store.is_dequantized and store.scale is not None:
        return store
    codes, scale = store.codes.reshape(-1), store.scale
    if scale is not None:
        aligned = [-1 if axis == store.axis else 1 for axis in range(len(store.shape))]
        scale = scale.reshape(aligned if scale.ndim else [1] * len(store.shape))
    computed = computed_dtype(store.dtype, scale)

    def sparse(places: Places) -> SparseStore:
        part = codes[places.stored]
        packed = AffineStore(part.shape, computed, part, store.opset, is_dequantized=False)
        return SparseStore(
            store.shape, store.dtype, places.packed, places.base, packed, store.opset, 0, scale
        )

    return _smallest(store, codes.astype(np.float32) != 0, sparse, present)


def _smallest(
    whole: Dense,
    support: NDArray[np.bool_],
    sparse: Callable[[Places], SparseStore],
    present: Collection[tuple[object, ...]],
) -> Dense | SparseStore:
    """Return a dense store, or the sparse one of what is not zero if it adds fewer bytes."""
    stored, count = int(np.count_nonzero(support)), len(support)
    least = min(count, 4 * stored) / 8 + whole.nbytes * stored / max(count, 1)
    if whole.opset < SINCE_OPSET or count > MOST_ELEMENTS or least >= whole.nbytes:
        return whole
    found = [sparse(places) for places in Places.all_of(support)]
    best = min(found, key=lambda store: store.added_bytes(present))
    return best if best.added_bytes(present) < whole.added_bytes(present) else whole


def _smallest_packing(  # noqa: PLR0917 - as `store_codes`
    codes: NDArray[np.uint8],
    codebook: Codebook,
    shape: tuple[int, ...],
    dtype: np.dtype[Any],
    opset: int,
    axis: int,
    scale: NDArray[Any] | None,
    present: Collection[tuple[object, ...]],
) -> CodebookStore:
    radix = next(base for base in RADIX_BASES if base >= codebook.clusters)
    packings = {(radix,), plane_bases(codebook.clusters)}
    candidates = [
        CodebookStore(
            shape=shape,
            dtype=dtype,
            codebook=codebook,
            planes=split_planes(codes, bases),
            bases=bases,
            opset=opset,
            axis=axis,
            scale=scale,
            native=native,
        )
        for bases in sorted(packings)
        for native in (False, True)
        if not native or _has_native_type(bases, codebook, opset)
    ]
    return min(candidates, key=lambda store: store.added_bytes(present))


def _has_native_type(bases: tuple[int, ...], codebook: Codebook, opset: int) -> bool:
    if len(bases) > 1 or codebook.groups > 1 or bases[0] not in NATIVE_TYPES:
        return False
    data_type, since = NATIVE_TYPES[bases[0]]
    return data_type != 0 and opset >= since
