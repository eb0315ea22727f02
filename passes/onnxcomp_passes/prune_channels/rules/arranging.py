"""Operators that put elements elsewhere: to other axes, together, or around others."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from onnxcomp_passes.prune_channels.literals import Literal

if TYPE_CHECKING:
    from collections.abc import Callable

    from onnxcomp_passes.prune_channels.operators import Operator

AXIS_BY_DEFAULT = 4
"""The opset before which Concat joins along axis 1 unless it says otherwise."""


def transpose(op: Operator) -> None:
    """Axes change places."""
    x = op.input(0)
    order = op.attribute("perm", range(len(x))[::-1])
    op.join_axes((x[axis] for axis in order), op.output())


def concat(op: Operator) -> None:
    """One axis holds the elements of all inputs, one after the other."""
    output = op.output()
    axis = op.axis(len(output), int(op.opset < AXIS_BY_DEFAULT))
    start = 0
    for place in range(len(op.node.inputs)):
        axes = op.input(place)
        stop = start + len(axes[axis])
        for at, (ids, given) in enumerate(zip(axes, output, strict=True)):
            op.join(ids, given[start:stop] if at == axis else given)
            op.use(place, at, "follows")
        start = stop


def pad(op: Operator) -> None:
    """What is put around stays; the rest follows."""
    x, output = op.input(0), op.output()
    pads = op.constant(1) if op.has(1) else np.array(op.attribute("pads", ()), np.int64)
    axes = op.constant(3) if op.has(3) else np.arange(len(x))
    for place in (1, 3):
        op.freeze(op.input(place), "holds pads")
    if pads is None or axes is None or len(pads) != 2 * len(axes):
        op.freeze((*x, *output), f"{op.name} by numbers that are computed")
        return
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
    """The shape has as many elements as there are axes; its numbers are followed elsewhere."""
    op.leave(op.input(0))
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
    several = len(output[1]) // len(x[1])
    is_outer = op.attribute("mode", "DCR") == "DCR"
    op.join(np.tile(x[1], several) if is_outer else np.repeat(x[1], several), output[1])


def resize(op: Operator) -> None:
    """Axes that keep their size follow; the others, along which is interpolated, stay."""
    x, output = op.input(0), op.output()
    for place in range(1, len(op.node.inputs)):
        op.freeze(op.input(place), "holds sizes")
    sizes = list(op.sources(3) or [None] * len(x)) if op.has(3) else []
    axes = [axis % len(x) for axis in op.attribute("axes", range(len(x)))]
    crops = op.attribute("coordinate_transformation_mode") == "tf_crop_and_resize"
    for axis, (ids, given) in enumerate(zip(x, output, strict=True)):
        source = sizes[axes.index(axis)] if sizes and axis in axes else None
        if len(ids) != len(given) or (crops and axis in axes):
            op.freeze((ids, given), op.mixes)
            op.hold(source)
            continue
        op.join(ids, given)
        if sizes and axis in axes:
            op.count(source, given)


RULES: dict[str, Callable[[Operator], None]] = {
    "Concat": concat,
    "ConstantOfShape": constant_of_shape,
    "DepthToSpace": depth_to_space,
    "Expand": expand,
    "Pad": pad,
    "Resize": resize,
    "Shape": shape,
    "SpaceToDepth": space_to_depth,
    "Tile": tile,
    "Transpose": transpose,
    "Upsample": resize,
}
