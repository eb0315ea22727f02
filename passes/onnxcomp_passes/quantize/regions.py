"""Which layers belong together, because integers go from one to the other."""

from __future__ import annotations

from typing import TYPE_CHECKING

from onnxcomp.statistics import layers
from onnxcomp_passes.quantize.placement import clipped

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    import onnx_graphsurgeon as gs

    from onnxcomp.graph import Model
    from onnxcomp_passes.quantize.placement import Plan

    Names = tuple[str, ...]


def regions(model: Model, plan: Plan) -> list[Names]:
    """Return the names of the weights of layers between which no float is made.

    Layers that read the same rounded tensor are of one region too.

    Args:
        model: The model, not rounded.
        plan: The layers that compute with integers.

    Returns:
        Regions in the order of their first layers; each weight's name is in one of them.
    """
    from scipy.cluster.hierarchy import DisjointSet  # noqa: PLC0415 - slow to import

    placement = plan.place(model)
    connected = DisjointSet(placement.nodes)
    for rounded in placement.tensors:
        ends = [id(each) for each in _ends(rounded.tensor) if id(each) in placement.nodes]
        for one in ends[1:]:
            connected.merge(ends[0], one)
    return _named(
        (layer.weight.name, connected[id(use.node)])
        for layer in layers(model)
        if layer.key in placement.keys
        for use in layer.uses
    )


def reading_together(model: Model, keys: Iterable[str]) -> list[Names]:
    """Return the names of the weights of layers that read the same tensor.

    Args:
        model: The model.
        keys: The layers.
    """
    wanted = frozenset(keys)
    return _named(
        (layer.weight.name, id(use.tensors[0]))
        for layer in layers(model)
        if layer.key in wanted
        for use in layer.uses
    )


def portions(found: Sequence[Names], most: int) -> Iterator[Names]:
    """Yield about so many parts of alike size: regions, or runs of layers of large ones.

    Args:
        found: Regions.
        most: How many parts.
    """
    size = -(-sum(map(len, found)) // most)
    waiting: Names = ()
    for region in found:
        if waiting and len(waiting) + len(region) > size:
            yield waiting
            waiting = ()
        waiting += region
        while len(waiting) > size:
            yield waiting[:size]
            waiting = waiting[size:]
    if waiting:
        yield waiting


def _ends(tensor: gs.Tensor) -> Iterator[gs.Node]:
    """Yield what computes a tensor, before the activation that ends its range, and its readers."""
    for maker in tensor.inputs:
        yield maker if clipped(maker) is None else maker.inputs[0].inputs[0]
    yield from tensor.outputs


def _named(pairs: Iterable[tuple[str, int]]) -> list[Names]:
    """Return the names of each group, where a name belongs to the first group that has it."""
    groups: dict[str, int] = {}
    for name, group in pairs:
        groups.setdefault(name, group)
    found: dict[int, list[str]] = {}
    for name, group in groups.items():
        found.setdefault(group, []).append(name)
    return [tuple(names) for names in found.values()]
