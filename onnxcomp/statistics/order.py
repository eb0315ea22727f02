"""In which order layers depend on each other."""

from __future__ import annotations

from typing import TYPE_CHECKING

from onnxcomp.graph import bodies_of, ordered

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
    using = {id(use.node) for layer in layers for use in layer.uses}
    depths: dict[int, int] = {}
    _walk(model, using, depths)
    sorted_layers: dict[int, list[Layer]] = {}
    for layer in layers:
        level = min(depths[id(use.node)] for use in layer.uses)
        sorted_layers.setdefault(level, []).append(layer)
    return [sorted_layers[level] for level in sorted(sorted_layers)]


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
