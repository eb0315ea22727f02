"""Which elements of which axes belong together: what the rules of operators say of a graph.

Every axis of every tensor is an array of element numbers. A rule joins elements of the axes that
an operator reads with those that it gives, and freezes those that cannot go. Connected elements
are one channel.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import onnx_graphsurgeon as gs

    from onnxcomp_passes.prune_channels.groups import Integers, Use

Ids = NDArray[np.int64]
"""Numbers of elements, along one axis."""

Preference = Literal["outer", "inner"]


class Misfit(Exception):  # noqa: N818 - nobody made an error: a rule does not know such a node
    """A node's tensors have other shapes than the rule of its operator expects."""


@dataclass(frozen=True, eq=False)
class Merge:
    """An axis whose elements are the pairs, triples, ... of those of several factors.

    Its elements can only go with all pairs of one factor's element: a head with all its features,
    or a feature of all heads. The other factors stay.

    Args:
        whole: Elements of the axis, the last factor fastest.
        factors: Elements of each factor; their sizes multiply to that of the axis.
        prefers: The factor that is tried first.
    """

    whole: Ids
    factors: tuple[Ids, ...]
    prefers: Preference

    def grid(self, factor: int) -> Ids:
        """Return the axis's elements by the factor's; shape (factor, others)."""
        sizes = [len(each) for each in self.factors]
        return np.moveaxis(self.whole.reshape(sizes), factor, 0).reshape(sizes[factor], -1)


@dataclass(frozen=True, eq=False)
class Counted:
    """An integer that counts elements.

    Args:
        integers: Where it stands.
        index: Which of them it is.
        value: What it is; below zero where it is a position from the end.
        ids: What it counts; of a position, what is before it, or from it to the end.
    """

    integers: Integers
    index: int
    value: int
    ids: Ids


class Elements:
    """What is known of the elements of a graph.

    Args:
        shapes: Sizes of tensors by identity; a tensor that is missing has no known shape.

    Attributes:
        tensors: Every tensor whose elements were asked for, with the elements of its axes.
        pairs: Elements that are the same channel.
        frozen: Elements that have to stay, and why.
        merges: Axes of pairs.
        uses: What an axis does in an operator, by identity of the tensor and by axis.
        counted: Integers that count elements.
    """

    def __init__(self, shapes: Mapping[int, tuple[int, ...]]) -> None:
        self.tensors: dict[int, tuple[gs.Tensor, list[Ids]]] = {}
        self.pairs: list[tuple[Ids, Ids]] = []
        self.frozen: list[tuple[Ids, str]] = []
        self.merges: list[Merge] = []
        self.uses: dict[tuple[int, int], list[Use]] = {}
        self.counted: list[Counted] = []
        self.size = 0
        self._shapes = shapes

    def axes(self, tensor: gs.Tensor) -> list[Ids] | None:
        """Return the elements of each axis of a tensor; None where its shape is not known."""
        if id(tensor) not in self.tensors:
            shape = self._shapes.get(id(tensor))
            if shape is None:
                return None
            self.tensors[id(tensor)] = tensor, [self.new(size) for size in shape]
        return self.tensors[id(tensor)][1]

    def new(self, size: int) -> Ids:
        """Return elements that belong to nothing yet."""
        self.size += size
        return np.arange(self.size - size, self.size)

    def join(self, one: Ids, other: Ids) -> None:
        """Say that elements are the same, one by one.

        Raises:
            Misfit: They are not of the same shape.
        """
        if one.shape != other.shape:
            raise Misfit
        self.pairs.append((one.ravel(), other.ravel()))

    def freeze(self, ids: Ids, reason: str) -> None:
        """Say that elements have to stay."""
        self.frozen.append((ids.ravel(), reason))

    def merge(self, whole: Ids, factors: Sequence[Ids], prefers: Preference = "outer") -> None:
        """Say that an axis is made of pairs, the last factor fastest; factors of 1 are none.

        Raises:
            Misfit: It has more or fewer elements.
        """
        if len(whole) != prod(map(len, factors)):
            raise Misfit
        several = tuple(each for each in factors if len(each) > 1)
        if len(several) > 1:
            self.merges.append(Merge(whole, several, prefers))
        elif several:
            self.join(whole, several[0])
