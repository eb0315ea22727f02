"""Columns that are kept as they are, to measure a repair on what it was not made from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Self

    from numpy.typing import NDArray

    Columns = NDArray[np.float32]

MOST_KEPT = 1024


class HeldOut:
    """A random sample of at most `MOST_KEPT` columns, the same in whatever order they come.

    Every column draws a number; those with the lowest ones are kept (bottom-k sampling, Cohen
    and Kaplan, 2007), so that samples of two halves merge to that of the whole.

    Attributes:
        columns: Shape (sides, groups, kept, width); sides are x and, where it is known, x0.
    """

    def __init__(self, sides: int, groups: int, width: int) -> None:
        self.columns: Columns = np.empty((sides, groups, 0, width), np.float32)
        self._drawn: NDArray[np.float64] = np.empty((0,))

    def add(self, columns: Columns, original: Columns | None, random: np.random.Generator) -> None:
        """Take in columns, shape (groups, columns, width), perhaps with the original's."""
        drawn: NDArray[np.float64] = random.random((columns.shape[1],))
        if len(self._drawn) == MOST_KEPT:
            near = np.flatnonzero(drawn < self._drawn[-1])
        else:
            near = np.arange(len(drawn))
        sides = [columns] if original is None else [columns, original]
        self._keep(np.stack([side[:, near] for side in sides]), drawn[near])

    def merge(self, other: Self) -> None:
        """Take in all that another has seen."""
        self._keep(other.columns, other._drawn)

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return the columns as arrays, for a file."""
        return {"columns": self.columns, "drawn": self._drawn}

    @classmethod
    def of_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> Self:
        """Return what `arrays` gave."""
        sides, groups, _, width = arrays["columns"].shape
        made = cls(sides, groups, width)
        made.columns, made._drawn = arrays["columns"], arrays["drawn"]
        return made

    def _keep(self, columns: Columns, drawn: NDArray[np.float64]) -> None:
        if not len(drawn):
            return
        drawn = np.concatenate([self._drawn, drawn])
        lowest = np.argsort(drawn, kind="stable")[:MOST_KEPT]
        self._drawn = drawn[lowest]
        self.columns = np.concatenate([self.columns, columns], axis=2)[:, :, lowest]
