"""Operators that scale and shift the channels of what they read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeGuard

import numpy as np

from onnxcomp.graph import Constant, constant_of

if TYPE_CHECKING:
    from collections.abc import Callable

    import onnx_graphsurgeon as gs
    from numpy.typing import NDArray

    from onnxcomp.graph import Graph
    from onnxcomp_passes.simplify.ledger import Ledger

    Floats = NDArray[np.float64]
    Test = Callable[[gs.Tensor], TypeGuard[Constant]]

STANDARD = {None, "", "ai.onnx"}
"""Names of the domain of the standard operators."""

EPSILON = 1e-5
"""ONNX's default."""

ARITHMETIC = {"Mul", "Div", "Add", "Sub"}

BIAS_PLACE = 2
"""The input at which Conv, ConvTranspose and Gemm take a bias."""


@dataclass(frozen=True, eq=False)
class Affine:
    """An operator that gives ``scale * x + shift``.

    Args:
        node: The operator.
        place: The input at which it reads x.
        parameters: Its other inputs, which are constants.
    """

    node: gs.Node
    place: int
    parameters: tuple[Constant, ...]

    @property
    def source(self) -> gs.Tensor:
        """The x that it reads."""
        return self.node.inputs[self.place]

    def factors(self, rank: int, axis: int) -> tuple[Floats, Floats] | None:
        """Return scale and shift, each with one element for all channels or one for each.

        Args:
            rank: The rank of x.
            axis: The axis of its channels.

        Returns:
            None where they differ along another axis.
        """
        if self.node.op == "BatchNormalization":
            scale, shift, mean, variance = (_floats(each) for each in self.parameters)
            scale = scale / np.sqrt(variance + float(self.node.attrs.get("epsilon", EPSILON)))
            return scale, shift - scale * mean
        given = self.parameters[0]
        aligned = (1,) * (rank - len(given.shape)) + tuple(given.shape)
        is_elsewhere = any(size != 1 for place, size in enumerate(aligned) if place != axis)
        if len(aligned) != rank or is_elsewhere:
            return None
        number, one, nothing = _floats(given).reshape(-1), np.ones(1), np.zeros(1)
        if self.node.op in {"Mul", "Div"}:
            return (number if self.node.op == "Mul" else 1 / number), nothing
        if self.node.op == "Add" or self.place:
            return (one if self.node.op == "Add" else -one), number
        return one, -number


def affine(node: gs.Node, may_fold: Test) -> Affine | None:
    """Return an operator as a scale and a shift by constants that may go; None if it is none."""
    if node.domain not in STANDARD:
        return None
    place = 0
    if node.op == "BatchNormalization":
        named = [each for each in node.outputs if each.name]
        is_training = node.attrs.get("training_mode", 0) or len(named) > 1
        if is_training or node.attrs.get("spatial", 1) != 1:
            return None
    elif node.op in ARITHMETIC:
        place = int(isinstance(node.inputs[0], Constant))
        if node.op == "Div" and place:
            return None
    else:
        return None
    parameters = tuple(
        each for index, each in enumerate(node.inputs) if index != place and may_fold(each)
    )
    is_free = not isinstance(node.inputs[place], Constant)
    if not is_free or len(parameters) < len(node.inputs) - 1:
        return None
    return Affine(node, place, parameters)


@dataclass(frozen=True, eq=False)
class Place:
    """One scope in which scales and shifts are folded into layers.

    Args:
        scope: The graph or body.
        may_fold: Whether a tensor is a constant that may be changed or removed.
        names: Names that are taken; those of new constants are added.
        ledger: Told what became of which weight.
    """

    scope: Graph
    may_fold: Test
    names: set[str]
    ledger: Ledger

    def has(self, node: gs.Node) -> bool:
        """Whether a node is one of the scope's, and not of a body inside it."""
        return any(each is node for each in self.scope.nodes)

    def gives(self, tensor: gs.Tensor) -> bool:
        """Whether a tensor is an output of the scope."""
        return any(each is tensor for each in self.scope.outputs)

    def only_maker(self, tensor: gs.Tensor) -> gs.Node | None:
        """Return the node of this scope that makes a tensor for one reader alone."""
        if len(tensor.outputs) != 1 or self.gives(tensor) or not tensor.inputs:
            return None
        return tensor.inputs[0] if self.has(tensor.inputs[0]) else None

    def fold(
        self, found: Affine, layer: gs.Node, weight: NDArray[Any], bias: NDArray[Any] | None
    ) -> None:
        """Give a layer the weight and the bias that have a scale and a shift in them.

        Args:
            found: The scale and shift.
            layer: The layer; it alone reads its weight.
            weight: The new weight.
            bias: The new bias; None: it stays as it is.
        """
        kind = found.node.op
        for parameter in found.parameters:
            self.ledger.reasons.setdefault(id(parameter.held), f"folded away with its {kind}")
        multiplied = constant_of(layer.inputs[1])
        held = id(multiplied.held)
        self.ledger.set_values(multiplied, weight, f"{kind} folded into it")
        if bias is None:
            return
        old = layer.inputs[BIAS_PLACE] if len(layer.inputs) > BIAS_PLACE else None
        if old is not None and old.name and len(old.outputs) == 1:
            self.ledger.set_values(constant_of(old), bias, f"{kind} folded into it")
            return
        constant = self.constant(f"{layer.inputs[1].name}_bias", bias)
        layer.inputs = [*layer.inputs[:BIAS_PLACE], constant]
        self.ledger.owners[id(constant)] = self.ledger.owners.get(id(layer.inputs[1]), held)

    def constant(self, name: str, values: NDArray[Any]) -> Constant:
        """Make a constant, with a name that nothing has yet."""
        while name in self.names:
            name += "_"
        self.names.add(name)
        constant = Constant(name, values)
        self.scope.constants.append(constant)
        return constant

    def remove(self, node: gs.Node) -> None:
        """Remove a node whose output nobody needs any more."""
        node.inputs.clear()
        node.outputs.clear()
        self.scope.nodes = [each for each in self.scope.nodes if each is not node]


def _floats(constant: Constant) -> Floats:
    return constant.values.astype(np.float64)
