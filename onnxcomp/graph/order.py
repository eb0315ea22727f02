"""Topological order without recursion, and as close to the given order as it can be."""

from __future__ import annotations

from heapq import heapify, heappop, heappush
from typing import TYPE_CHECKING

import onnx_graphsurgeon as gs

from onnxcomp.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Sequence


def ordered(nodes: Sequence[gs.Node]) -> list[gs.Node]:
    """Return the nodes of one scope so that each comes after those it reads from.

    A valid order is returned as it is; otherwise the earliest node of the given order that is
    ready comes next (Kahn 1962). What the bodies of a node read counts as read by the node.

    Raises:
        ModelError: The nodes form a cycle.
    """
    makers = {id(tensor): place for place, node in enumerate(nodes) for tensor in node.outputs}
    needs = [
        {makers[id(tensor)] for tensor in read_by(node) if id(tensor) in makers} for node in nodes
    ]
    if all(max(before, default=-1) < place for place, before in enumerate(needs)):
        return list(nodes)
    readers: list[list[int]] = [[] for _ in nodes]
    for place, before in enumerate(needs):
        for maker in before:
            readers[maker].append(place)
    missing = [len(before) for before in needs]
    ready = [place for place, count in enumerate(missing) if count == 0]
    heapify(ready)
    result = []
    while ready:
        place = heappop(ready)
        result.append(nodes[place])
        for reader in readers[place]:
            missing[reader] -= 1
            if missing[reader] == 0:
                heappush(ready, reader)
    if len(result) < len(nodes):
        stuck = next(node for node, count in zip(nodes, missing, strict=True) if count)
        raise ModelError(f"the graph has a cycle through node {stuck.name!r} ({stuck.op})")
    return result


def read_by(node: gs.Node) -> list[gs.Tensor]:
    """Return the tensors that a node or any body inside it reads."""
    tensors: list[gs.Tensor] = []
    waiting = [node]
    while waiting:
        current = waiting.pop()
        tensors.extend(current.inputs)
        for value in current.attrs.values():
            if isinstance(value, gs.Graph):
                tensors.extend(value.outputs)
                waiting.extend(value.nodes)
    return tensors
