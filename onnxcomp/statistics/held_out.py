"""Columns that are kept as they are, to measure a repair on what it was not made from."""

from __future__ import annotations

from dataclasses import replace
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np

from onnxcomp.statistics.streaming import describe

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Self

    from numpy.typing import NDArray

    from onnxcomp.runtime import Samples

    Columns = NDArray[np.float32]

HELD_OUT = 5
"""One sample in so many is kept apart, to measure repairs on."""

MOST_KEPT, MOST_ELEMENTS = 1024, 1 << 22
"""Columns that are kept at most, and elements of them together."""

SIDES = ("columns", "original")
"""Names of the columns in a file."""


class HeldOut:
    """A random sample of up to `MOST_KEPT` columns, the same in whatever order they come.

    Every column draws a number; those with the lowest ones are kept (bottom-k sampling, Cohen
    and Kaplan, 2007), so that samples of two halves merge to that of the whole.

    Args:
        groups: Groups of columns.
        width: Elements of a column.
        original_width: Elements of the original's column that comes with each; 0 for none.
    """

    def __init__(self, groups: int, width: int, original_width: int = 0) -> None:
        widths = (width, original_width) if original_width else (width,)
        self._sides: list[Columns] = [np.empty((groups, 0, each), np.float32) for each in widths]
        self._drawn: NDArray[np.float64] = np.empty((0,))
        self._most = max(1, min(MOST_KEPT, MOST_ELEMENTS // (groups * sum(widths))))

    @property
    def columns(self) -> Columns:
        """The columns, shape (groups, kept, width)."""
        return self._sides[0]

    @property
    def original(self) -> Columns:
        """The original's, shape (groups, kept, original width); the same without an original."""
        return self._sides[-1]

    @property
    def paired(self) -> bool:
        """Whether columns come with the original's."""
        return len(self._sides) > 1

    def add(self, columns: Columns, original: Columns | None, random: np.random.Generator) -> None:
        """Take in columns, shape (groups, columns, width), perhaps with the original's."""
        drawn: NDArray[np.float64] = random.random((columns.shape[1],))
        if len(self._drawn) == self._most:
            near = np.flatnonzero(drawn < self._drawn[-1])
        else:
            near = np.arange(len(drawn))
        sides = [columns] if original is None else [columns, original]
        self._keep([side[:, near] for side in sides], drawn[near])

    def merge(self, other: Self) -> None:
        """Take in all that another has seen."""
        self._keep(other._sides, other._drawn)

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return the columns as arrays, for a file."""
        return {"drawn": self._drawn, **dict(zip(SIDES, self._sides, strict=False))}

    @classmethod
    def of_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> Self:
        """Return what `arrays` gave."""
        sides = [arrays[name] for name in SIDES if name in arrays]
        made = cls(len(sides[0]), *(side.shape[2] for side in sides))
        made._sides, made._drawn = sides, arrays["drawn"]
        return made

    def _keep(self, sides: Sequence[Columns], drawn: NDArray[np.float64]) -> None:
        if not len(drawn):
            return
        drawn = np.concatenate([self._drawn, drawn])
        lowest = np.argsort(drawn, kind="stable")[: self._most]
        self._drawn = drawn[lowest]
        self._sides = [
            np.concatenate(pair, axis=1)[:, lowest]
            for pair in zip(self._sides, sides, strict=True)
        ]


def held_out_samples(samples: Samples, most: int) -> Samples:
    """Return the first few samples that no moments are made of; the first of all if none is.

    Args:
        samples: Calibration samples.
        most: How many.
    """
    unseen = (feed for feed in samples.batched(1) if not describe(feed).seed % HELD_OUT)
    feeds = list(islice(unseen, most)) or list(islice(samples.batched(1), most))
    return replace(samples, count=len(feeds) * samples.least, read=lambda _: feeds, batch=1)
