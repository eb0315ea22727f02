"""What folding costs: which constant subgraphs take no more bytes as constants."""

from __future__ import annotations

from collections import defaultdict
from math import prod
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    import onnx_ir as ir

SMALL = 256
"""Bytes that do not matter: what a node takes that is folded away."""


def affordable(model: ir.Model, is_foldable: Callable[[ir.Node], bool]) -> set[ir.Node]:
    """Return the nodes that can be folded without the file growing.

    Nodes that work on the same weight are folded together or not at all: a recurrent network
    slices its weights into gates that are joined in another order, and only together do the
    slices replace the weight. A weight that something else reads too stays, and whatever is
    computed of it would come on top.

    Args:
        model: The model, with the shapes of its tensors.
        is_foldable: Whether a node may be folded if all that it reads is constant.
    """
    import onnx_ir as ir  # noqa: PLC0415 - half a second, which only this pass pays

    groups = _Groups()
    computed: dict[ir.Value, ir.Node] = {}
    for node in ir.traversal.RecursiveGraphIterator(model.graph):
        inputs = [each for each in node.inputs if each is not None]
        known = all(each in computed or _is_constant(each) for each in inputs)
        if inputs and known and is_foldable(node) and _bytes(node.outputs[0]) is not None:
            computed[node.outputs[0]] = node
            # A small constant, such as axes, is read by nodes that have nothing in common.
            linked = [each for each in inputs if each in computed or (_bytes(each) or 0) > SMALL]
            groups.join([node.outputs[0], *linked])
    return {
        computed[value]
        for group in groups.listed()
        if _cost(group, computed) <= SMALL
        for value in group
        if value in computed
    }


class _Groups:
    """Disjoint sets of values, in the order in which they came."""

    def __init__(self) -> None:
        self._parents: dict[ir.Value, ir.Value] = {}

    def join(self, values: Iterable[ir.Value]) -> None:
        first, *others = [self._root(each) for each in values]
        for each in others:
            self._parents[each] = first

    def listed(self) -> list[list[ir.Value]]:
        groups = defaultdict(list)
        for value in self._parents:
            groups[self._root(value)].append(value)
        return list(groups.values())

    def _root(self, value: ir.Value) -> ir.Value:
        self._parents.setdefault(value, value)
        while self._parents[value] is not value:
            value = self._parents[value]
        return value


def _is_constant(value: ir.Value) -> bool:
    return value.is_initializer() and not value.is_graph_input() and value.const_value is not None


def _bytes(value: ir.Value) -> int | None:
    """Bytes of a tensor, or None where its type or shape is not known."""
    if value.shape is None or value.dtype is None or value.dtype.name == "STRING":
        return None
    sizes = [size for size in value.shape if isinstance(size, int)]
    if len(sizes) < len(value.shape):
        return None
    return int(prod(sizes) * value.dtype.itemsize)


def _cost(group: list[ir.Value], computed: dict[ir.Value, ir.Node]) -> int:
    """Bytes that are added if all nodes of a group are folded, less those that go."""
    nodes = {computed[value] for value in group if value in computed}
    cost = 0
    for value in group:
        stays = value.is_graph_output() or any(use.node not in nodes for use in value.uses())
        size = _bytes(value) or 0
        if value in computed:
            cost += size if stays else 0
        elif not stays:
            cost -= size
    return cost
