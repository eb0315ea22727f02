"""In which order layers depend on each other."""

from __future__ import annotations

from typing import TYPE_CHECKING

from onnxcomp.graph import Constant, bodies_of, ordered, read_by
from onnxcomp.statistics.columns import HiddenStates

if TYPE_CHECKING:
    from collections.abc import Sequence

    import onnx_graphsurgeon as gs

    from onnxcomp.graph import Graph, Model
    from onnxcomp.statistics.layers import Layer


class Order:
    """How many layers lie before each layer and each tensor of a model.

    Args:
        model: The model.
        layers: Layers of it that have uses.
    """

    def __init__(self, model: Model, layers: Sequence[Layer]) -> None:
        self._model = model
        self._layers = layers
        self._depths: dict[int, int] = {}
        _walk(model, {id(use.node) for layer in layers for use in layer.uses}, self._depths)
        self._uses = [{self._depths[id(use.node)] for use in each.uses} for each in layers]

    def levels(self) -> dict[int, list[Layer]]:
        """Sort layers into levels: none depends on another of its level or of a later one.

        A layer with several uses belongs to the level of its first.
        """
        found: dict[int, list[Layer]] = {}
        for layer, depths in zip(self._layers, self._uses, strict=True):
            found.setdefault(min(depths), []).append(layer)
        return dict(sorted(found.items()))

    def last(self) -> list[Layer]:
        """Return the layers of the last level: what they lose, no later one can make up for."""
        levels = list(self.levels().values())
        return levels[-1] if levels else []

    def recurring(self) -> list[Layer]:
        """Return the layers that depend on themselves, by a later use or by recurrence."""
        return [
            layer
            for layer, depths in zip(self._layers, self._uses, strict=True)
            if len(depths) > 1 or any(isinstance(use.view, HiddenStates) for use in layer.uses)
        ]

    def settled(self) -> list[Layer]:
        """Return the layers to whose output is added what depends on earlier levels only.

        Two branches that are summed up would otherwise both make up for what either lacks.
        """
        return [
            layer
            for layer in self._layers
            for use in layer.uses[:1]
            if use.addend is not None
            and self._depths.get(id(use.addend), 0) <= self._depths[id(use.node)]
        ]

    def frontier(self, level: int) -> list[gs.Tensor]:
        """Return what the layers of a level, and all behind them, read of what lies before.

        These are tensors of the main graph that depend on no layer of the level or a later one.
        """
        made = {id(tensor) for node in self._model.nodes for tensor in node.outputs}
        found: dict[int, gs.Tensor] = {}
        for node in self._model.nodes:
            if all(self._depths.get(id(each), 0) <= level for each in node.outputs):
                continue
            for tensor in read_by(node):
                is_before = id(tensor) in made and self._depths.get(id(tensor), level + 1) <= level
                if is_before and not isinstance(tensor, Constant):
                    found[id(tensor)] = tensor
        return list(found.values())


def _walk(graph: Graph, using: set[int], depths: dict[int, int]) -> int:
    """Find for nodes and tensors how many layers lie before them, and return the most."""
    deepest = 0
    for node in ordered(graph.nodes):
        depth = max((depths.get(id(each), 0) for each in node.inputs), default=0)
        depths[id(node)] = depth
        for body in bodies_of(node):
            depth = max(depth, _walk(body, using, depths))
        depth += id(node) in using
        for each in node.outputs:
            depths[id(each)] = depth
        deepest = max(deepest, depth)
    return deepest
