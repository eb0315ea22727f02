"""Where integers go: which operators compute with them, and which tensors are rounded for that."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from math import inf
from typing import TYPE_CHECKING, Any

from onnxcomp.graph import Constant, is_fixed
from onnxcomp.statistics import layers

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    import numpy as np
    import onnx_graphsurgeon as gs

    from onnxcomp.graph import Graph, Model, Node, Variable
    from onnxcomp.statistics import Layer, Use
    from onnxcomp_passes.quantize.profiles import Profile


@dataclass(eq=False)
class Rounded:
    """A tensor that is rounded to integers.

    Args:
        tensor: The tensor.
        scope: The graph or branch that computes it.
        dtype: Its element type.
        is_given: Whether what computes it gives integers only, so that all readers get those;
            otherwise those that compute with floats read it as it was.
        source: The rounded tensor whose grid it has, where an operator only passes that on.
        keys: The layers that need it rounded.
    """

    tensor: gs.Tensor
    scope: Graph
    dtype: np.dtype[Any]
    is_given: bool = False
    source: Rounded | None = None
    keys: list[str] = field(default_factory=list)

    @property
    def name(self) -> str:
        """The tensor's name."""
        return str(self.tensor.name)

    @property
    def source_name(self) -> str:
        """The name of what the activation that gives it reads; empty where there is none."""
        node = self.tensor.inputs[0] if self.tensor.inputs else None
        return str(node.inputs[0].name) if clipped(node) is not None and node is not None else ""

    @property
    def bounds(self) -> tuple[float, float]:
        """Where the activation that gives it ends anyway: for a Relu, 0 and infinity."""
        node = self.tensor.inputs[0] if self.tensor.inputs else None
        return clipped(node) or (-inf, inf)


@dataclass(frozen=True, eq=False)
class Placement:
    """What of a model is computed with integers.

    Args:
        keys: The layers that are.
        nodes: Operators that read integers, by identity.
        tensors: What is rounded, in the order in which layers need it.
    """

    keys: frozenset[str]
    nodes: frozenset[int]
    tensors: list[Rounded]

    def replace(self, rounded: Rounded, new: Variable, made: Sequence[Node]) -> None:
        """Let those that read a tensor rounded read another, which new operators compute."""
        old = rounded.tensor
        for reader in dict.fromkeys(old.outputs):
            if rounded.is_given or id(reader) in self.nodes:
                reader.inputs = [new if each is old else each for each in reader.inputs]
        made[0].inputs = [old, *made[0].inputs]
        rounded.scope.nodes.extend(made)


@dataclass(frozen=True)
class Plan:
    """Which layers should compute with integers.

    Args:
        keys: Layers that gain by themselves.
        islands: Layers that gain only between others that give and take integers.
        profile: What their provider does.
    """

    keys: frozenset[str]
    islands: frozenset[str]
    profile: Profile

    def without(self, keys: Collection[str]) -> Plan:
        """Return a plan in which some layers compute with floats."""
        return replace(self, keys=self.keys - set(keys), islands=self.islands - set(keys))

    def place(self, model: Model) -> Placement:
        """Say what of a model is rounded."""
        found = _Placing(self.profile, _homes(model))
        islands: dict[int, Layer] = {}
        for layer in layers(model):
            if layer.key in self.keys:
                found.add(layer)
            elif layer.key in self.islands:
                islands |= {id(use.node): layer for use in layer.uses}
        for scope in model.all_scopes():
            for node in scope.nodes:
                found.pass_on(node, islands.get(id(node)))
        return Placement(
            frozenset(found.keys), frozenset(found.nodes), list(found.tensors.values())
        )


def _homes(model: Model) -> dict[int, Graph]:
    """Return the scope that computes or is fed each tensor; branches may read it too."""
    return {
        id(tensor): scope
        for scope in model.all_scopes()
        for tensor in (*scope.inputs, *(each for node in scope.nodes for each in node.outputs))
    }


@dataclass(eq=False)
class _Placing:
    """A placement that is being made."""

    profile: Profile
    homes: dict[int, Graph]
    keys: set[str] = field(default_factory=set)
    nodes: set[int] = field(default_factory=set)
    tensors: dict[int, Rounded] = field(default_factory=dict)

    def add(self, layer: Layer) -> None:
        """Let a layer compute with integers."""
        self.keys.add(layer.key)
        for use in layer.uses:
            self.nodes.add(id(use.node))
            self._round(use.tensors[0], use, layer)
            if use.node.op in self.profile.gives_integers:
                self._round(settled(use.node), use, layer).is_given = True

    def pass_on(self, node: gs.Node, layer: Layer | None) -> None:
        """Let an operator between others that compute with integers do so too."""
        read = [each for each in node.inputs if not isinstance(each, Constant)]
        if node.op in self.profile.gates and len(read) == len(node.inputs):
            self._open(node, read)
        if not read or not all(id(each) in self.tensors for each in read):
            return
        is_given = all(self.tensors[id(each)].is_given for each in read)
        given = self.tensors.get(id(settled(node)))
        if layer is not None and given is not None and is_given:
            self.add(layer)
        elif node.op in self.profile.carrying and id(node.outputs[0]) in self.tensors:
            given = self.tensors[id(node.outputs[0])]
            given.is_given, given.source = True, self.tensors[id(read[0])]
            self.nodes.add(id(node))
        elif node.op in self.profile.islands and len(read) == len(node.inputs):
            self._join(node, given, is_given=is_given)

    def _open(self, node: gs.Node, read: Sequence[gs.Tensor]) -> None:
        """Let a product of something given as integers with something that is not be one too."""
        product = self.tensors.get(id(settled(node)))
        others = [each for each in read if id(each) not in self.tensors]
        known = [self.tensors[id(each)] for each in read if id(each) in self.tensors]
        if product is None or not known or not all(each.is_given for each in known):
            return
        for each in others:
            home = self.homes[id(each)]
            keys = list(product.keys)
            self.tensors[id(each)] = Rounded(each, home, product.dtype, is_given=True, keys=keys)
        product.is_given = True
        self.nodes.add(id(node))

    def _join(self, node: gs.Node, given: Rounded | None, *, is_given: bool) -> None:
        if given is not None and is_given:
            given.is_given = True
            self.nodes.add(id(node))

    def _round(self, tensor: gs.Tensor, use: Use, layer: Layer) -> Rounded:
        home = self.homes.get(id(tensor), use.scope)
        new = Rounded(tensor, home, layer.weight.dtype)
        found = self.tensors.setdefault(id(tensor), new)
        found.keys.append(layer.key)
        return found


def settled(node: gs.Node) -> gs.Tensor:
    """Return what an operator gives once the activation that follows it is done.

    Rounding to a grid that ends where a Relu or Clip does, does what they do.
    """
    output = node.outputs[0]
    readers = dict.fromkeys(output.outputs)
    if len(readers) == 1:
        (reader,) = readers
        if clipped(reader) is not None:
            return reader.outputs[0]
    return output


def clipped(node: gs.Node | None) -> tuple[float, float] | None:
    """Return the bounds of a Relu or Clip that starts at zero; None of others."""
    if node is None or node.op not in {"Relu", "Clip"}:
        return None
    if node.op == "Relu":
        return 0.0, inf
    bounds = []
    for place_, name in ((1, "min"), (2, "max")):
        given = node.inputs[place_ : place_ + 1]
        if given and given[0].name and not is_fixed(given[0]):
            return None
        number = float(given[0].values) if given and is_fixed(given[0]) else node.attrs.get(name)
        bounds.append(number)
    low, high = bounds
    return (0.0, inf if high is None else high) if low == 0 else None
