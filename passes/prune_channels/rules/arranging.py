"""Operators that put elements elsewhere: to other axes, together, apart, or around."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from passes.prune_channels.groups import Integers
from passes.prune_channels.literals import Literal

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from passes.prune_channels.elements import Ids
    from passes.prune_channels.literals import Source
    from passes.prune_channels.operators import Operator

BY_INPUT = 13
"""The opset from which Split takes its sizes as an input."""

MOST_INDICES = 4096


def transpose(op: Operator) -> None:
    """Axes change places."""
    x = op.input(0)
    order = op.attribute("perm", range(len(x))[::-1])
    op.join_axes((x[axis] for axis in order), op.output())


def concat(op: Operator) -> None:
    """One axis holds the elements of all inputs, one after the other."""
    output = op.output()
    axis = op.axis(len(output))
    start = 0
    for place in range(len(op.node.inputs)):
        axes = op.input(place)
        stop = start + len(axes[axis])
        for at, (ids, given) in enumerate(zip(axes, output, strict=True)):
            op.join(ids, given[start:stop] if at == axis else given)
            op.use(place, at, "follows")
        start = stop


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
    if len(ids) == len(given) and step == 1 and _is_whole(bounds, len(ids)):
        op.join(ids, given)
        return
    start, end = (_position(each, len(ids)) for each in bounds)
    if step != 1 or start is None or end is None or max(end - start, 0) != len(given):
        op.freeze((ids, given), f"{op.name} in steps or with bounds that are computed")
        return
    op.join(ids[start:end], given)
    for source, position in zip(bounds, (start, end), strict=True):
        if isinstance(source, Literal) and source.value >= len(ids):
            continue
        if 0 < position:
            op.count(source, ids[:position], position)


def _is_whole(bounds: tuple[Source, Source], size: int) -> bool:
    """Tell whether bounds take an axis of any size as a whole."""
    start, end = bounds
    return (
        isinstance(start, Literal)
        and isinstance(end, Literal)
        and start.value == 0
        and end.value >= np.iinfo(np.int32).max
        and size >= 0
    )


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
    is_followed = (
        len(indices) <= 1 and int(np.prod([len(each) for each in indices])) <= MOST_INDICES
    )
    places = op.constant(1) if is_followed and axis < len(x) else None
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
        if place:
            op.count(source, x[axis][:place], place)


def pad(op: Operator) -> None:
    """What is put around stays; the rest follows."""
    x, output = op.input(0), op.output()
    pads = op.constant(1) if op.has(1) else np.array(op.attribute("pads", ()), np.int64)
    axes = op.constant(3) if op.has(3) else np.arange(len(x))
    if pads is None or axes is None or len(pads) != 2 * len(axes):
        same = [len(one) == len(other) for one, other in zip(x, output, strict=True)]
        axes, pads = np.flatnonzero(same), np.zeros(2 * sum(same), np.int64)
        op.freeze((*x, *output), f"{op.name} by numbers that are computed")
    for place in (1, 3):
        op.freeze(op.input(place), "holds pads")
    around = dict(zip(axes.tolist(), pads.reshape(2, -1).T.tolist(), strict=True))
    is_constant = op.attribute("mode", "constant") == "constant"
    for axis, (ids, given) in enumerate(zip(x, output, strict=True)):
        before, after = around.get(axis, (0, 0))
        if (before or after) and (not is_constant or min(before, after) < 0):
            op.freeze((ids, given), f"{op.name} repeats or cuts it")
            continue
        stop = len(given) - after
        op.join(ids, given[before:stop])
        op.freeze((given[:before], given[stop:]), f"{op.name} puts it around")


def expand(op: Operator) -> None:
    """Axes of size 1 are repeated; numbers in the shape follow."""
    x, output = op.input(0), op.output()
    sources = op.sources(1)
    op.freeze(op.input(1), "holds a shape")
    for axis, ids in enumerate(x):
        given = output[len(output) - len(x) + axis]
        if len(ids) == len(given):
            op.join(ids, given)
    if sources is None:
        op.freeze(output, f"{op.name} to a shape that is computed")
        return
    for source, given in zip(sources, output[len(output) - len(sources) :], strict=True):
        if not (isinstance(source, Literal) and source.value == 1):
            op.count(source, given)


def tile(op: Operator) -> None:
    """Each element comes several times, and goes as often."""
    x, output = op.input(0), op.output()
    op.freeze(op.input(1), "holds repeats")
    op.constant(1)
    for ids, given in zip(x, output, strict=True):
        if len(ids):
            op.join(np.tile(ids, len(given) // len(ids)), given)


def constant_of_shape(op: Operator) -> None:
    """A tensor of one value; its shape follows."""
    sources, output = op.sources(0), op.output()
    op.freeze(op.input(0), "holds a shape")
    if sources is None:
        op.freeze(output, f"{op.name} of a shape that is computed")
        return
    for source, ids in zip(sources, output, strict=True):
        op.count(source, ids)


def shape(op: Operator) -> None:
    """The shape has as many elements as there are axes."""
    op.freeze(op.output(), "holds a shape")


def depth_to_space(op: Operator) -> None:
    """Of a block of channels, each goes to a place of the plane: they go together."""
    x, output = op.input(0), op.output()
    block = int(op.attribute("blocksize"))
    op.join(x[0], output[0])
    op.freeze((*x[2:], *output[2:]), op.mixes)
    is_outer = op.attribute("mode", "DCR") == "DCR"
    grid = x[1].reshape((-1, len(output[1])) if is_outer else (len(output[1]), -1))
    members = grid.T if is_outer else grid
    op.join(members, output[1][:, None].repeat(block * block, axis=1))


def space_to_depth(op: Operator) -> None:
    """Each channel becomes a block of channels."""
    x, output = op.input(0), op.output()
    op.join(x[0], output[0])
    op.freeze((*x[2:], *output[2:]), op.mixes)
    op.join(np.tile(x[1], len(output[1]) // len(x[1])), output[1])


def resize(op: Operator) -> None:
    """Axes that keep their size follow; the others, along which is interpolated, stay."""
    x, output = op.input(0), op.output()
    for place in range(1, len(op.node.inputs)):
        op.freeze(op.input(place), "holds sizes")
    sizes = list(op.sources(3) or [None] * len(x)) if op.has(3) else []
    axes = [axis % len(x) for axis in op.attribute("axes", range(len(x)))]
    crops = op.attribute("coordinate_transformation_mode") == "tf_crop_and_resize"
    for axis, (ids, given) in enumerate(zip(x, output, strict=True)):
        if len(ids) != len(given) or (crops and axis in axes):
            op.freeze((ids, given), op.mixes)
            continue
        op.join(ids, given)
        if sizes and axis in axes:
            op.count(sizes[axes.index(axis)], given)


RULES: dict[str, Callable[[Operator], None]] = {
    "Concat": concat,
    "ConstantOfShape": constant_of_shape,
    "DepthToSpace": depth_to_space,
    "Expand": expand,
    "Gather": gather,
    "Pad": pad,
    "Resize": resize,
    "Shape": shape,
    "Slice": slice_,
    "SpaceToDepth": space_to_depth,
    "Split": split,
    "Tile": tile,
    "Transpose": transpose,
    "Upsample": resize,
}
