"""Samples: feeds for a model that can be read again and again, and what makes an array fit."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain, compress, islice
from typing import Any

import numpy as np

from onnxcomp.errors import DataError
from onnxcomp.runtime.dtypes import DType, is_float
from onnxcomp.runtime.ports import Port
from onnxcomp.runtime.values import Array

Feed = dict[str, Array]

MOST_HELD_BYTES = 1 << 27
"""Samples that take more than this are read from their files whenever they are needed."""


@dataclass(frozen=True)
class Samples:
    """Inputs for a model, as feeds; every iteration reads them afresh.

    Attributes:
        source: Where they come from, for messages and reports.
        count: Samples in all the feeds together; files, where each file is a complete feed.
        read: Yields the feeds, given how many samples a feed may hold at most.
        batch: Samples in one feed at most; 1 where each feed is complete in itself.
        least: Samples in one feed at least, where the model fixes that.
        synthetic: True where the values were made up.
        chosen: Which samples of the source they are, from 0, where they are not all of it.
    """

    source: str
    count: int
    read: Callable[[int], Iterable[Feed]]
    batch: int = 1
    least: int = 1
    synthetic: bool = False
    chosen: tuple[int, ...] | None = None

    def __iter__(self) -> Iterator[Feed]:
        return iter(self.read(self.batch))

    @property
    def numbers(self) -> Sequence[int]:
        """Which samples of the source they are, from 0, in order."""
        return range(self.count) if self.chosen is None else self.chosen

    @property
    def batches(self) -> int:
        """The number of feeds in one iteration."""
        return -(-self.count // self.batch)

    def batched(self, most: int) -> "Samples":
        """Return the same samples, at most ``most`` in a feed where the model leaves that open."""
        return replace(self, batch=max(self.least, min(most, self.batch)))

    def held(self) -> "Samples":
        """Return the same samples, in memory where they take little; others as they are.

        Passes run a model over them dozens of times, and files want to be unpacked each time.
        """
        units: list[Feed] = []
        total = 0
        for unit in self.read(self.least):
            units.append(unit)
            total += sum(np.asarray(array).nbytes for array in unit.values())
            if total > MOST_HELD_BYTES:
                return self
        read = partial(_read_part, lambda _: units, self.least, [True] * len(units))
        return replace(self, read=read)

    def parted(self, every: int) -> "tuple[Samples, Samples]":
        """Return all samples but one of every so many, and these.

        Raises:
            DataError: There are fewer than that.
        """
        units = self.count // self.least
        held = units // every
        if not held:
            what = "samples" if self.least == 1 else f"batches of {self.least}"
            raise DataError(
                f"{self.source}: {units} {what} are too few to hold one of {every} out; give "
                f"{every} at least"
            )
        is_held = [place % every == every - 1 for place in range(units)]
        return self._part([not each for each in is_held]), self._part(is_held)

    def spread(self, most: int) -> "Samples":
        """Return so many of the samples at most, evenly spread."""
        units, wanted = self.count // self.least, max(1, most // self.least)
        if units <= wanted:
            return self
        taken = {place * units // wanted for place in range(wanted)}
        return self._part([place in taken for place in range(units)])

    def _part(self, taken: Sequence[bool]) -> "Samples":
        read = partial(_read_part, self.read, self.least, taken)
        numbers = [self.numbers[place * self.least :][: self.least] for place in range(len(taken))]
        chosen = tuple(chain.from_iterable(compress(numbers, taken)))
        return replace(self, count=len(chosen), read=read, chosen=chosen)


def _read_part(
    read: Callable[[int], Iterable[Feed]], least: int, taken: Sequence[bool], most: int
) -> Iterator[Feed]:
    """Yield the samples that are taken, so many in a feed."""
    units = compress(read(least), taken)
    while feeds := list(islice(units, max(1, most // least))):
        if len(feeds) == 1:
            yield feeds[0]
        else:
            yield {name: np.concatenate([each[name] for each in feeds]) for name in feeds[0]}


def fit_dtype(array: Array, port: Port, where: str) -> Array:
    """Cast an array to an input's dtype where that keeps the kind of number.

    Floats become floats of any width, integers become integers that hold every value, text
    becomes strings. Arrays that NumPy saved as raw bytes (bfloat16) are read as the input's type.

    Raises:
        DataError: The kinds differ, or an integer is too large; the text starts with ``where``.
    """
    wanted = port.dtype
    if wanted is None or array.dtype == wanted:
        return array
    if not castable(array.dtype, wanted):
        raise DataError(f"{where}: input {port.name!r} has dtype {array.dtype}, expected {wanted}")
    if array.dtype.kind == "V" and not is_float(array.dtype):
        return array.view(wanted)
    with np.errstate(over="ignore"):
        cast: Array = array.astype(wanted)
    if wanted.kind in "iu" and not np.array_equal(cast, array):
        raise DataError(f"{where}: input {port.name!r} has integers that {wanted} cannot hold")
    return cast


def castable(given: DType, wanted: DType) -> bool:
    """Tell whether :func:`fit_dtype` may turn one dtype into the other."""
    if given == wanted:
        return True
    if wanted.kind == "O":
        return given.kind in "UT"
    if is_float(wanted):
        raw = given.kind == "V" and given.itemsize == wanted.itemsize
        return is_float(given) or raw
    return given.kind in "iu" and wanted.kind in "iu"


def cast_feed(feed: Mapping[str, Any], inputs: Iterable[Port], where: str) -> Feed:
    """Cast every array of a feed to its input's dtype; all else stays as it is.

    Raises:
        DataError: A dtype does not fit; the text starts with ``where``.
    """
    ports = {port.name: port for port in inputs}
    return {
        name: fit_dtype(np.asarray(value), ports[name], where)
        if name in ports and ports[name].dtype is not None
        else value
        for name, value in feed.items()
    }
