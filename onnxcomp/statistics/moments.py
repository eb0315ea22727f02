"""First and second moments of columns, summed up in a stream."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Self

    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Columns = NDArray[np.float32]

PENDING_COLUMNS = 256
"""Fewer columns wait for more, since each product costs a walk over the whole matrix."""


class Moments:
    """Mean and second moment of columns x, perhaps beside what the original has in their place.

    Products are float32, of a few hundred columns at a time; their sums are float64.

    Args:
        groups: Groups of columns.
        width: Elements of a column.
        paired: Whether each column comes with the original's, x0.

    Attributes:
        count: Columns seen.
    """

    def __init__(self, groups: int, width: int, *, paired: bool = False) -> None:
        self.count = 0
        self._first = np.zeros((2 if paired else 1, groups, width))
        self._second = np.zeros((2 if paired else 1, groups, width, width))
        self._pending: list[Columns] = []
        self._waiting = 0

    @property
    def paired(self) -> bool:
        """Whether columns come with the original's."""
        return len(self._first) > 1

    def add(self, columns: Columns, original: Columns | None = None) -> None:
        """Take in columns, shape (groups, columns, width), perhaps with the original's."""
        self._pending.append(np.stack([columns] if original is None else [columns, original]))
        self._waiting += columns.shape[1]
        self.count += columns.shape[1]
        if self._waiting >= max(PENDING_COLUMNS, columns.shape[2] // 2):
            self._flush()

    def merge(self, other: Self) -> None:
        """Take in all that another has seen."""
        other._flush()
        self._flush()
        self.count += other.count
        self._first += other._first
        self._second += other._second

    @property
    def mean(self) -> Floats:
        """Mean of x, shape (groups, width)."""
        return self._mean(0)

    @property
    def original_mean(self) -> Floats:
        """Mean of x0, shape (groups, width)."""
        return self._mean(-1)

    @property
    def second(self) -> Floats:
        """Mean of x x', shape (groups, width, width)."""
        return self._mean_product(0)

    @property
    def cross(self) -> Floats:
        """Mean of x0 x', shape (groups, width, width)."""
        return self._mean_product(-1)

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return the sums as arrays, for a file."""
        self._flush()
        return {"count": np.array(self.count), "first": self._first, "second": self._second}

    @classmethod
    def of_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> Self:
        """Return what `arrays` gave."""
        sides, groups, width = arrays["first"].shape
        made = cls(groups, width, paired=sides > 1)
        made.count = int(arrays["count"])
        made._first = arrays["first"]
        made._second = arrays["second"]
        return made

    def _mean(self, side: int) -> Floats:
        self._flush()
        mean: Floats = self._first[side] / max(self.count, 1)
        return mean

    def _mean_product(self, side: int) -> Floats:
        self._flush()
        mean: Floats = self._second[side] / max(self.count, 1)
        return mean

    def _flush(self) -> None:
        if not self._pending:
            return
        columns = np.concatenate(self._pending, axis=2)
        self._pending, self._waiting = [], 0
        self._first += columns.sum(axis=2, dtype=np.float64)
        for side, sums in zip(columns, self._second, strict=True):
            np.add(sums, np.matmul(side.transpose(0, 2, 1), columns[0]), out=sums)
