"""Tensors of every sample, kept in files, so that a walk starts where the last one ended."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import onnx_graphsurgeon as gs
    from numpy.typing import NDArray

    from onnxcomp.graph import Graph
    from onnxcomp.runtime import Feed
    from onnxcomp.statistics.streaming import Place, Sample

MOST_BYTES = 1 << 32
"""What all samples may take on the disk; where they would take more, walks start further back."""

KINDS = "fiub"
"""Kinds of element types that files keep: floats, integers, bool."""


@dataclass(frozen=True)
class Start:
    """What a model is fed in place of its first nodes.

    Args:
        tensors: Tensors of the model, by the names of the inputs that stand for them.
        kinds: Element type and rank of each.
        folder: Where their values are.
        side: Which of several models this is.
        samples: What else is known of each sample.
    """

    tensors: dict[str, gs.Tensor]
    kinds: dict[str, tuple[np.dtype[Any], int]]
    folder: Path
    side: int
    samples: Sequence[Sample]

    def feed(self, number: int) -> Feed:
        """Return the values that a sample has."""
        with np.load(_file(self.folder, number, self.side)) as file:
            return {name: file[name] for name in file.files}


class Relay:
    """Keeps what the models of a walk have computed so far.

    Args:
        folder: An empty folder, for the values.
        samples: How many samples there are.
        scopes: The main graphs of the models.

    Attributes:
        starts: Where the next walk starts, for each model; None at the inputs.
    """

    def __init__(self, folder: Path, samples: int, scopes: Sequence[Graph]) -> None:
        self.starts: list[Start] | None = None
        self._folder = folder
        self._samples = samples
        self._scopes = scopes
        self._rounds = 0

    def keeper(self, tensors: Sequence[Sequence[gs.Tensor]]) -> Keeper:
        """Return what keeps tensors of each model during the next walk."""
        self._rounds += 1
        folder = self._folder / str(self._rounds)
        folder.mkdir()
        return Keeper(folder, self._samples, self._scopes, tensors)

    def advance(self, keeper: Keeper) -> None:
        """Start from where a walk has ended, if all of it was kept."""
        if not any(keeper.kinds):
            shutil.rmtree(keeper.folder)
            return
        old = self.starts
        self.starts = [
            Start(keeper.named(side), keeper.kinds[side], keeper.folder, side, keeper.samples)
            for side in range(len(self._scopes))
        ]
        if old is not None:
            shutil.rmtree(old[0].folder)


class Keeper:
    """Watches tensors and writes them to files.

    Args:
        folder: Where to.
        samples: How many samples there will be.
        scopes: The main graphs of the models.
        tensors: Tensors of each model, which need not be the same.

    Attributes:
        folder: The same.
        kinds: For each model the element type and rank of those that are kept, by the names of
            their inputs; empty where they are none, or too large together.
        samples: What else is known of the samples so far.
    """

    def __init__(
        self,
        folder: Path,
        samples: int,
        scopes: Sequence[Graph],
        tensors: Sequence[Sequence[gs.Tensor]],
    ) -> None:
        self.folder = folder
        self.kinds: list[dict[str, tuple[np.dtype[Any], int]]] = [{} for _ in scopes]
        self.samples: list[Sample] = []
        self._count = samples
        self._scopes = scopes
        self._tensors = tensors

    def named(self, side: int) -> dict[str, gs.Tensor]:
        """Return the tensors of a model that are kept, by the names of their inputs."""
        named = {_name(place): tensor for place, tensor in enumerate(self._tensors[side])}
        return {name: tensor for name, tensor in named.items() if name in self.kinds[side]}

    def places(self, side: int) -> list[Place]:
        """Return the tensors."""
        return [(tensor, self._scopes[side]) for tensor in self._tensors[side]]

    def take(self, sample: Sample, sides: Sequence[Sequence[NDArray[Any]]]) -> None:
        """Write the tensors of a sample to a file for each model."""
        if not self.samples:
            self._look(sides)
        if any(self.kinds):
            for side, (arrays, kinds) in enumerate(zip(sides, self.kinds, strict=True)):
                named = {_name(place): array for place, array in enumerate(arrays)}
                kept = {name: array for name, array in named.items() if name in kinds}
                np.savez(_file(self.folder, len(self.samples), side), allow_pickle=False, **kept)
        self.samples.append(sample)

    def _look(self, sides: Sequence[Sequence[NDArray[Any]]]) -> None:
        """Find by the first sample what can be kept."""
        size = sum(array.nbytes for arrays in sides for array in arrays)
        if size * self._count <= MOST_BYTES:
            self.kinds = [
                {
                    _name(place): (array.dtype, array.ndim)
                    for place, array in enumerate(arrays)
                    if array.dtype.kind in KINDS
                }
                for arrays in sides
            ]


def _name(place: int) -> str:
    return f"onnxcomp.kept.{place}"


def _file(folder: Path, number: int, side: int) -> Path:
    return folder / f"{number}.{side}.npz"
