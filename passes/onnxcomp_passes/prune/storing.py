"""Pruned weights in the file: as small as they get, or not at all."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from onnxcomp.stores import AffineStore, SparseStore, leave_out_zeros

if TYPE_CHECKING:
    from collections.abc import Collection

    from numpy.typing import NDArray

    from onnxcomp.graph import Weight


def sparse_store(
    weight: Weight, values: NDArray[Any], present: Collection[tuple[object, ...]]
) -> SparseStore | None:
    """Return the smallest store of a weight without its zeros; None where none is smaller.

    Args:
        weight: The weight.
        values: What it is to hold, of its shape and type.
        present: Tables that the file has.
    """
    plain = AffineStore(weight.shape, weight.dtype, values, weight.opset, is_dequantized=False)
    store = leave_out_zeros(plain, present)
    return store if isinstance(store, SparseStore) else None
