"""Weights a block at a time, so that no copy of a whole one is made."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

BLOCK = 1 << 22
"""Elements of a block."""


def flat_blocks(values: NDArray[Any]) -> Iterator[NDArray[Any]]:
    """Yield all elements, in order."""
    flat = values.reshape(-1)
    for start in range(0, len(flat), BLOCK):
        yield flat[start : start + BLOCK]


def row_blocks(
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


def has_zero(values: NDArray[Any]) -> bool:
    """Whether a weight has a zero."""
    return any(bool(np.any(block == 0)) for block in flat_blocks(values))


def is_finite(values: NDArray[Any]) -> bool:
    """Whether a weight holds neither a NaN nor an infinity."""
    return all(bool(np.all(np.isfinite(block))) for block in flat_blocks(values))
