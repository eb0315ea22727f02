"""Statistics of what layers multiply their weights with, gathered in one walk over the samples."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from dataclasses import dataclass
from itertools import repeat
from threading import Lock
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from threadpoolctl import threadpool_limits

from onnxcomp.statistics.columns import Features, Patches
from onnxcomp.statistics.held_out import HELD_OUT, HeldOut
from onnxcomp.statistics.moments import Moments
from onnxcomp.statistics.streaming import portions, stream

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from contextlib import AbstractContextManager
    from typing import Self

    import onnx_graphsurgeon as gs
    from numpy.typing import NDArray

    from onnxcomp.graph import Model
    from onnxcomp.runtime import Samples
    from onnxcomp.statistics.layers import Layer, Use
    from onnxcomp.statistics.relay import Start
    from onnxcomp.statistics.streaming import Place, Sample

WORKERS = 2
"""Threads that sum up; each sum belongs to one of them at a time, so that its order is fixed."""


class InputStatistics:
    """What a layer multiplies its weight with.

    Attributes:
        moments: Of most samples; None before the first.
        held_out: Columns of the others; None before the first.
    """

    def __init__(self) -> None:
        self.moments: Moments | None = None
        self.held_out: HeldOut | None = None

    @property
    def fit(self) -> Moments | None:
        """What repairs are made from: the held-out columns only where there is nothing else."""
        if self.moments is not None or self.held_out is None:
            return self.moments
        groups, _, width = self.held_out.columns.shape
        original = self.held_out.original if self.held_out.paired else None
        moments = Moments(groups, width, 0 if original is None else original.shape[2])
        moments.add(self.held_out.columns, original)
        return moments

    def add(self, columns: NDArray[Any], original: NDArray[Any] | None, sample: Sample) -> None:
        """Take in the columns of a sample, shape (groups, columns, width).

        A sample whose columns are not finite, or whose squares are not, does not count.
        """
        groups, count, width = columns.shape
        if not count or not _has_squares(columns):
            return
        if original is not None and not _has_squares(original):
            return
        beside = 0 if original is None else original.shape[2]
        if sample.seed % HELD_OUT:
            self.moments = self.moments or Moments(groups, width, beside)
            self.moments.add(columns, original)
        else:
            self.held_out = self.held_out or HeldOut(groups, width, beside)
            self.held_out.add(columns, original, sample.random())

    def merge(self, other: InputStatistics) -> None:
        """Take in all that another has seen; the other stays as it is."""
        if self.moments is None or other.moments is None:
            self.moments = self.moments or deepcopy(other.moments)
        else:
            self.moments.merge(other.moments)
        if self.held_out is None or other.held_out is None:
            self.held_out = self.held_out or deepcopy(other.held_out)
        else:
            self.held_out.merge(other.held_out)

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return all of it as arrays, for a file."""
        parts = {"moments": self.moments, "held_out": self.held_out}
        return {
            f"{part}/{name}": array
            for part, held in parts.items()
            if held is not None
            for name, array in held.arrays().items()
        }

    @classmethod
    def of_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> Self:
        """Return what `arrays` gave."""
        made = cls()
        parts: dict[str, dict[str, NDArray[Any]]] = {}
        for name, array in arrays.items():
            part, _, rest = name.partition("/")
            parts.setdefault(part, {})[rest] = array
        if "moments" in parts:
            made.moments = Moments.of_arrays(parts["moments"])
        if "held_out" in parts:
            made.held_out = HeldOut.of_arrays(parts["held_out"])
        return made


class Watch(Protocol):
    """What is summed up of some tensors."""

    def places(self, side: int) -> list[Place]:
        """Return the tensors of a model (0) or of its original (1)."""
        ...

    def take(self, sample: Sample, sides: Sequence[Sequence[NDArray[Any]]]) -> None:
        """Take in the tensors of a sample, in the order of `places`."""
        ...


@dataclass(frozen=True)
class InputWatch:
    """Watches what operators multiply a weight with.

    Beside an original, and where something is added to what the only operator gives (the
    residual of a block), the original's columns are followed by what the model's lacks of it:
    W x0 and that together are what the operator should give, so that it makes up for both.

    Args:
        uses: The operators, for the model and perhaps for its original.
        statistics: What is summed up.
        with_addend: Whether what is added to the operator's output is watched too.
    """

    uses: tuple[tuple[Use, ...], ...]
    statistics: InputStatistics
    with_addend: bool

    def places(self, side: int) -> list[Place]:
        """Return the operators' inputs."""
        return [(tensor, use.scope) for use in self.uses[side] for tensor in self._of(use)]

    def take(self, sample: Sample, sides: Sequence[Sequence[NDArray[Any]]]) -> None:
        """Take in the columns that the operators multiply with."""
        start = 0
        for use in self.uses[0]:
            part = slice(start, start + len(self._of(use)))
            start = part.stop
            arrays = [side[part] for side in sides]
            shapes = [[array.shape for array in side] for side in arrays]
            # Sizes that depend on values may differ, and then no column has a counterpart.
            if all(array.size for array in arrays[0]) and shapes[0] == shapes[-1]:
                self._add(use, arrays, sample)

    def _of(self, use: Use) -> tuple[gs.Tensor, ...]:
        addend = use.addend if self.with_addend else None
        return use.tensors if addend is None else (*use.tensors, addend)

    def _add(self, use: Use, sides: list[Sequence[NDArray[Any]]], sample: Sample) -> None:
        count = len(use.tensors)
        cut = [use.view.columns(side[:count], sample.mask, sample.random()) for side in sides]
        original = cut[1] if len(cut) > 1 else None
        if len(sides[0]) > count:
            lacking = _lacking(use, sides, sample)
            wanted = (cut[1].shape[1], use.form.matrices[1])
            if lacking is None or lacking.shape != wanted:
                lacking = np.zeros(wanted, np.float32)
            original = np.concatenate([cut[1], lacking[None]], axis=2)
        self.statistics.add(cut[0], original, sample)


def _lacking(
    use: Use, sides: Sequence[Sequence[NDArray[Any]]], sample: Sample
) -> NDArray[Any] | None:
    """Return what is added in the original and not in the model, shape (columns, outputs).

    None where one value is added in several places, which is no residual.
    """
    read, added = sides[0][0], sides[0][-1]
    if read.ndim != added.ndim or not isinstance(use.view, Features | Patches):
        return None
    if isinstance(use.view, Features):
        moved = [np.moveaxis(each, use.view.axis, -1).shape[:-1] for each in (read, added)]
        if moved[0] != moved[1]:
            return None
    rows = [use.view.rows(side[-1], sample.mask, sample.random()) for side in sides]
    return rows[1] - rows[0]


def watch_inputs(
    layers: Sequence[Layer],
    originals: Sequence[Layer] | None = None,
    settled: Sequence[Layer] = (),
) -> tuple[list[InputWatch], list[InputStatistics]]:
    """Return what watches the inputs of layers, and the statistics of each layer.

    Layers that read the same columns share them.

    Args:
        layers: Layers of the model.
        originals: The same layers of its original, whose columns are to be had too.
        settled: Layers that may make up for what is added to their output.
    """
    watches: dict[tuple[object, ...], InputWatch] = {}
    found = []
    for place, layer in enumerate(layers):
        uses = (layer.uses,) if originals is None else (layer.uses, originals[place].uses)
        with_addend = all(
            len(each) == 1 and each[0].addend is not None and layer in settled for each in uses
        )
        key = tuple(
            (use.view, id(use.scope), *map(id, use.tensors), with_addend and id(use.addend))
            for use in layer.uses
        )
        watch = InputWatch(uses, InputStatistics(), with_addend)
        found.append(watches.setdefault(key, watch).statistics)
    return [watch for watch in watches.values() if watch.uses[0]], found


def one_thread() -> AbstractContextManager[object]:
    """Return a context in which products of matrices round alike on any number of cores."""
    limited: AbstractContextManager[object] = threadpool_limits(1, "blas")
    return limited


def walk(
    models: Sequence[Model],
    watches: Sequence[Watch],
    samples: Samples,
    progress: Callable[[float], None] = lambda _: None,
    starts: Sequence[Start] | None = None,
) -> None:
    """Run a model, perhaps beside its original, over samples, and let watches look on.

    Memory does not grow with the number of samples: tensors live as long as their sample, and
    where those of one sample are too large together, there are several walks.

    Args:
        models: The model, and perhaps its original.
        watches: Told of every sample, each in the same order.
        samples: Calibration samples.
        progress: Told the share that is done.
        starts: For each model, what it is fed in place of its first nodes.
    """
    # A watch of nothing would make a model of nothing, which ONNX Runtime does not load.
    watches = [watch for watch in watches if watch.places(0)]
    if not watches:
        progress(1.0)
        return
    begin: Sequence[Start | None] = starts or [None] * len(models)
    parts = portions(models[0], [watch.places(0) for watch in watches], samples, begin[0])
    sides = range(len(models))
    reading = Lock()
    with ThreadPoolExecutor(WORKERS) as pool, one_thread():
        for done, part in enumerate(parts):
            wanted = [[watch.places(side) for watch in watches[part]] for side in sides]
            streams = [
                stream(model, [one for places in each for one in places], samples, start, reading)
                for model, each, start in zip(models, wanted, begin, strict=True)
            ]
            for count in range(samples.batched(1).batches):
                results = list(pool.map(next, streams))
                cut = [
                    _dealt(arrays, each) for (_, arrays), each in zip(results, wanted, strict=True)
                ]
                told = [watch.take for watch in watches[part]]
                list(pool.map(_call, told, repeat(results[0][0]), zip(*cut, strict=True)))
                progress((done + (count + 1) / samples.batched(1).batches) / len(parts))


def _has_squares(columns: NDArray[Any]) -> bool:
    with np.errstate(over="ignore", invalid="ignore"):
        return bool(np.isfinite(np.vdot(columns, columns)))


def _call(take: Callable[..., None], sample: Sample, sides: Sequence[Any]) -> None:
    take(sample, sides)


def _dealt(arrays: list[Any], wanted: Sequence[Sequence[Place]]) -> list[list[Any]]:
    """Deal arrays out to those that wanted them."""
    remaining = iter(arrays)
    return [[next(remaining) for _ in places] for places in wanted]
