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

SUMS = ("first", "second", "original_first", "cross")
"""Names of the sums in a file."""

PENDING_COLUMNS = 256
"""Fewer columns wait for more, since each product costs a walk over the whole matrix."""


class Moments:
    """Mean and second moment of columns x, perhaps beside what the original has in their place.

    Products are float32, of a few hundred columns at a time; their sums are float64.

    Args:
        groups: Groups of columns.
        width: Elements of a column.
        original_width: Elements of the original's column x0 that comes with each; 0 for none.

    Attributes:
        count: Columns seen.
    """

    def __init__(self, groups: int, width: int, original_width: int = 0) -> None:
        self.count = 0
        widths = (width, original_width) if original_width else (width,)
        self._first = [np.zeros((groups, each)) for each in widths]
        self._second = [np.zeros((groups, each, width)) for each in widths]
        self._pending: list[tuple[Columns, ...]] = []
        self._waiting = 0

    @property
    def paired(self) -> bool:
        """Whether columns come with the original's."""
        return len(self._first) > 1

    def add(self, columns: Columns, original: Columns | None = None) -> None:
        """Take in columns, shape (groups, columns, width), perhaps with the original's."""
        self._pending.append((columns,) if original is None else (columns, original))
        self._waiting += columns.shape[1]
        self.count += columns.shape[1]
        if self._waiting >= max(PENDING_COLUMNS, columns.shape[2] // 2):
            self._flush()

    def merge(self, other: Self) -> None:
        """Take in all that another has seen."""
        other._flush()
        self._flush()
        self.count += other.count
        for mine, theirs in zip(self._sums(), other._sums(), strict=True):
            np.add(mine, theirs, out=mine)

    @property
    def mean(self) -> Floats:
        """Mean of x, shape (groups, width)."""
        return self._average(self._first[0])

    @property
    def original_mean(self) -> Floats:
        """Mean of x0, shape (groups, original width); that of x where there is no x0."""
        return self._average(self._first[-1])

    @property
    def second(self) -> Floats:
        """Mean of x x', shape (groups, width, width)."""
        return self._average(self._second[0])

    @property
    def cross(self) -> Floats:
        """Mean of x0 x', shape (groups, original width, width); that of x x' without x0."""
        return self._average(self._second[-1])

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return the sums as arrays, for a file."""
        self._flush()
        names = SUMS[: 4 if self.paired else 2]
        return {"count": np.array(self.count), **dict(zip(names, self._sums(), strict=True))}

    @classmethod
    def of_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> Self:
        """Return what `arrays` gave."""
        made = cls(*arrays["first"].shape)
        made.count = int(arrays["count"])
        sides = [names for names in (SUMS[:2], SUMS[2:]) if names[0] in arrays]
        made._first = [arrays[first] for first, _ in sides]
        made._second = [arrays[second] for _, second in sides]
        return made

    def _sums(self) -> list[Floats]:
        pairs = zip(self._first, self._second, strict=True)
        return [sums for pair in pairs for sums in pair]

    def _average(self, sums: Floats) -> Floats:
        self._flush()
        mean: Floats = sums / max(self.count, 1)
        return mean

    def _flush(self) -> None:
        if not self._pending:
            return
        sides = [np.concatenate(each, axis=1) for each in zip(*self._pending, strict=True)]
        self._pending, self._waiting = [], 0
        for side, first, second in zip(sides, self._first, self._second, strict=True):
            np.add(first, side.sum(axis=1, dtype=np.float64), out=first)
            np.add(second, np.matmul(side.transpose(0, 2, 1), sides[0]), out=second)
