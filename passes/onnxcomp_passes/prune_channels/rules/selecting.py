"""Operators that take some of an axis's elements: Split, Slice and Gather."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from onnxcomp_passes.prune_channels.groups import Integers
from onnxcomp_passes.prune_channels.literals import Literal

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from onnxcomp_passes.prune_channels.elements import Ids
    from onnxcomp_passes.prune_channels.literals import Source
    from onnxcomp_passes.prune_channels.operators import Operator

BY_INPUT = 13
"""The opset from which Split takes its sizes as an input."""


def split(op: Operator) -> None:
    """Each output has the next elements of one axis; the sizes follow."""
    x = op.input(0)
    axis = op.axis(len(x))
    parts = [op.output(place) for place in range(len(op.node.outputs))]
    sizes = _split_sizes(op, axis)
    start = 0
    for part, source in zip(parts, sizes, strict=True):
        length = len(part[axis])
        for at, (ids, given) in enumerate(zip(x, part, strict=True)):
            op.join(ids[start : start + length] if at == axis else ids, given)
        op.count(source, part[axis])
        start += length


def _split_sizes(op: Operator, axis: int) -> Sequence[Source]:
    """Return where the sizes of a Split come from; where it has none, it is given some."""
    sizes = tuple(len(op.output(place)[axis]) for place in range(len(op.node.outputs)))
    if op.has(1):
        op.freeze(op.input(1), "holds sizes")
        return op.sources(1) or [None] * len(sizes)
    place: int | str = 1 if op.opset >= BY_INPUT else "split"
    integers = Integers(op.node, place, sizes)
    return [Literal(integers, index, size) for index, size in enumerate(sizes)]


def slice_(op: Operator) -> None:
    """A range of each axis is taken; its bounds follow."""
    x, output = op.input(0), op.output()
    bounds = _bounds(op)
    if bounds is None:
        op.taken.clear()
        op.freeze_all(f"{op.name} with bounds that are computed")
        return
    starts, ends, axes, steps = bounds
    for axis, (ids, given) in enumerate(zip(x, output, strict=True)):
        if axis not in axes:
            op.join(ids, given)
            continue
        place = axes.index(axis)
        _slice_axis(op, ids, given, (starts[place], ends[place]), steps[place])


def _bounds(op: Operator) -> tuple[list[Source], list[Source], list[int], list[int]] | None:
    """Return where starts and ends come from, and along which axes in which steps; None if not."""
    if op.has(1):
        for place in range(1, 5):
            op.freeze(op.input(place), "holds bounds")
        starts, ends = (list(op.sources(place) or []) for place in (1, 2))
        axes, steps = (op.constant(place) for place in (3, 4))
        if (op.has(3) and axes is None) or (op.has(4) and steps is None):
            return None
    else:
        starts, ends = (_listed(op, name) for name in ("starts", "ends"))
        axes, steps = op.attribute("axes"), None
    if not starts or len(starts) != len(ends):
        return None
    rank = len(op.input(0))
    chosen = [int(axis) % rank for axis in (range(len(starts)) if axes is None else axes)]
    return starts, ends, chosen, [1] * len(starts) if steps is None else [int(x) for x in steps]


def _listed(op: Operator, name: str) -> list[Source]:
    values = tuple(op.attribute(name, ()))
    integers = Integers(op.node, name, values)
    return [Literal(integers, index, value) for index, value in enumerate(values)]


def _slice_axis(
    op: Operator, ids: Ids, given: Ids, bounds: tuple[Source, Source], step: int
) -> None:
    start, end = (_position(each, len(ids)) for each in bounds)
    if step != 1 or start is None or end is None or max(end - start, 0) != len(given):
        op.freeze((ids, given), f"{op.name} in steps or with bounds that are computed")
        for source in bounds:
            op.hold(source)
        return
    op.join(ids[start:end], given)
    for source, position in zip(bounds, (start, end), strict=True):
        if isinstance(source, Literal) and source.value >= len(ids):
            op.hold(source)
        else:
            op.place(source, ids, position)


def _position(source: Source, size: int) -> int | None:
    if source is None:
        return None
    value = source.value
    return min(max(value + size if value < 0 else value, 0), size)


def gather(op: Operator) -> None:
    """Elements of one axis are looked up: each output element is the one that its index names.

    Where indices are computed, as in a table of embeddings, the axis stays.
    """
    x, indices, output = op.input(0), op.input(1), op.output()
    axis = op.axis(len(x))
    given = output[axis : axis + len(indices)]
    others = [*output[:axis], *output[axis + len(indices) :]]
    op.join_axes((ids for at, ids in enumerate(x) if at != axis), others)
    op.join_axes(indices, given)
    for at in range(len(x)):
        op.use(0, at, "produces")
    places = op.constant(1) if len(indices) <= 1 else None
    if places is None:
        op.freeze((x[axis], *given), f"{op.name} looks up places in it")
        return
    places = np.where(places < 0, places + len(x[axis]), places)
    if indices:
        op.join(x[axis][places], indices[0])
        op.use(1, 0, "follows")
    else:
        op.freeze([x[axis][places]], f"{op.name} takes just it")
    for source, place in zip(op.sources(1) or (), places.tolist(), strict=True):
        op.place(source, x[axis], place)


RULES: dict[str, Callable[[Operator], None]] = {
    "Gather": gather,
    "Slice": slice_,
    "Split": split,
}
