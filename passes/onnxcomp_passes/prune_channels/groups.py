"""Groups of channels: what of a model has to go together, and what that takes with it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple

if TYPE_CHECKING:
    import numpy as np
    import onnx_graphsurgeon as gs
    from numpy.typing import NDArray

Role = Literal["produces", "consumes", "follows"]
"""What an axis of a constant does with channels: its rows compute their values (output axis), or
are multiplied with them and summed up (input axis), or each channel is changed by a number of its
own (bias, normalisation, element-wise factor)."""


class Use(NamedTuple):
    """An operator that reads a constant, and what the constant's axis does there."""

    role: Role
    node: gs.Node


@dataclass(frozen=True, eq=False)
class Part:
    """Where the channels of a group lie in one tensor.

    Args:
        tensor: The tensor, of the main graph.
        axis: The axis along which they lie.
        places: Elements of the axis that each channel takes; shape (channels, width).
        uses: Operators that read the tensor, where it is constant; one for each reader.
    """

    tensor: gs.Tensor
    axis: int
    places: NDArray[np.int64]
    uses: tuple[Use, ...] = ()


@dataclass(frozen=True, eq=False)
class Integers:
    """Integers of an operator that count channels: a Reshape's shape, a Conv's groups.

    Args:
        node: The operator.
        place: The input at which it takes them, or the name of its attribute.
        values: What they are, end to end.
    """

    node: gs.Node
    place: int | str
    values: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Count:
    """One integer that counts channels, and changes as they are removed.

    Args:
        integers: Where it stands.
        index: Which of them it is.
        value: What it is; below zero where it is a position from the end.
        shares: By how much it nears zero with each channel of the group; shape (channels,).
    """

    integers: Integers
    index: int
    value: int
    shares: NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Group:
    """Channels of one kind, any of which may be removed, each with all that belongs to it.

    Where what consumes a channel is zero, the model gives the same outputs without it.

    Args:
        weights: Where they lie in constants.
        tensors: Where they lie in tensors that are computed.
        counts: Integers that count them.
    """

    weights: tuple[Part, ...]
    tensors: tuple[Part, ...]
    counts: tuple[Count, ...]

    @property
    def count(self) -> int:
        """The number of channels."""
        return len((*self.weights, *self.tensors)[0].places)


@dataclass(frozen=True)
class Frozen:
    """An axis of which elements have to stay.

    Args:
        name: The tensor's name.
        axis: The axis.
        reason: Why they have to stay.
    """

    name: str
    axis: int
    reason: str
