"""Choosing how codes are stored: the form that adds the fewest bytes to the file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from onnxcomp.stores.codebook import NATIVE_TYPES, CodebookStore
from onnxcomp.stores.packing import plane_bases, split_planes

if TYPE_CHECKING:
    from collections.abc import Collection

    import numpy as np
    from numpy.typing import NDArray

    from onnxcomp.stores.entries import Codebook

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
) -> CodebookStore:
    """Store a weight as codes in the form that adds the fewest bytes at this opset.

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
