"""The values that codes stand for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from onnxcomp.stores import expression as ex

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Codebook:
    """The values that codes stand for, as they are stored.

    Args:
        entries: float, or int8 with ``unit``; shape (groups * entries a group, width).
        groups: How many codebooks ``entries`` holds, one after the other.
        unit: What an int8 entry is multiplied with; a 0-d float32 array.
    """

    entries: NDArray[Any]
    groups: int = 1
    unit: NDArray[np.float32] | None = None

    @property
    def clusters(self) -> int:
        """Entries of one group."""
        return len(self.entries) // self.groups

    @property
    def width(self) -> int:
        """Weights that one code stands for."""
        return int(self.entries.shape[1])

    def values(self, dtype: np.dtype[Any]) -> NDArray[Any]:
        """The entries as ``dtype``, as the decoding computes them."""
        if self.unit is None:
            return self.entries.astype(dtype)
        return (self.entries.astype(np.float32) * self.unit).astype(dtype)

    def expression(self, dtype: np.dtype[Any]) -> ex.Expression:
        """The operators that give `values`."""
        entries = self.entries if self.width > 1 else self.entries.reshape(-1)
        tree: ex.Expression = ex.Leaf.of(entries)
        stored = self.entries.dtype
        if self.unit is not None:
            tree = ex.Operation(
                "Mul", (ex.cast(tree, np.dtype(np.float32)), ex.Leaf.of(self.unit))
            )
            stored = np.dtype(np.float32)
        return tree if stored == dtype else ex.cast(tree, dtype)
