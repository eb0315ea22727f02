"""In which order layers depend on each other."""

from __future__ import annotations

from typing import TYPE_CHECKING

from onnxcomp.graph import bodies_of, ordered
from onnxcomp.statistics.columns import HiddenStates

if TYPE_CHECKING:
    from collections.abc import Sequence

    from onnxcomp.graph import Graph, Model
    from onnxcomp.statistics.layers import Layer


def levels(model: Model, layers: Sequence[Layer]) -> list[list[Layer]]:
    """Sort layers into levels: none depends on another of its level or of a later one.

    A layer with several uses belongs to the level of its first.

    Args:
        model: The model.
        layers: Layers of it that have uses.
    """
    sorted_layers: dict[int, list[Layer]] = {}
    for layer, depths in zip(layers, _depths(model, layers), strict=True):
        sorted_layers.setdefault(min(depths), []).append(layer)
    return [sorted_layers[level] for level in sorted(sorted_layers)]


def recurring(model: Model, layers: Sequence[Layer]) -> set[Layer]:
    """Return the layers that depend on themselves: those of several levels, and of hidden states.

    Args:
        model: The model.
        layers: Layers of it that have uses.
    """
    found = zip(layers, _depths(model, layers), strict=True)
    return {
        layer
        for layer, depths in found
        if len(depths) > 1 or any(isinstance(use.view, HiddenStates) for use in layer.uses)
    }


def _depths(model: Model, layers: Sequence[Layer]) -> list[set[int]]:
    """Return for each layer how many others lie before each of its uses."""
    using = {id(use.node) for layer in layers for use in layer.uses}
    depths: dict[int, int] = {}
    _walk(model, using, depths)
    return [{depths[id(use.node)] for use in layer.uses} for layer in layers]


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
