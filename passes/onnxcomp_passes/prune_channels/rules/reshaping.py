"""Operators that read a tensor's elements in the same order with other axes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from onnxcomp_passes.prune_channels.literals import Literal

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from onnxcomp_passes.prune_channels.elements import Ids
    from onnxcomp_passes.prune_channels.operators import Operator

CUTS_ACROSS = "cuts across it"


def reshape(op: Operator) -> None:
    """Axes are split and merged; numbers in the shape follow."""
    regroup(op)
    sources = op.sources(1) if op.has(1) else None
    x, output = op.input(0), op.output()
    if op.has(1):
        op.freeze(op.input(1), "holds a shape")
    if sources is None:
        op.freeze(output, f"{op.name} to a shape that is computed")
        return
    for axis, (source, ids) in enumerate(zip(sources, output, strict=True)):
        value = source.value if isinstance(source, Literal) else None
        if value == 0 and not op.attribute("allowzero", 0) and len(x[axis]) == len(ids):
            op.join(x[axis], ids)
        elif value != -1:
            op.count(source, ids)


def flatten(op: Operator) -> None:
    """All axes before one become one, and all others another."""
    regroup(op)


def squeeze(op: Operator) -> None:
    """Axes of size 1 go."""
    _take_axes(op)
    regroup(op)


def unsqueeze(op: Operator) -> None:
    """Axes of size 1 come."""
    _take_axes(op)
    regroup(op)


def _take_axes(op: Operator) -> None:
    if op.has(1):
        op.freeze(op.input(1), "holds axes")


def regroup(op: Operator) -> None:
    """Relate the axes of the first input to those of the output by their common factors."""
    x, output = op.input(0), op.output()
    if not all(map(len, (*x, *output))):
        op.freeze((*x, *output), "is empty")
        return
    for block in _blocks([len(each) for each in x], [len(each) for each in output]):
        _relate(op, [x[axis] for axis in block.before], [output[axis] for axis in block.after])


@dataclass(frozen=True)
class _Block:
    """Axes before and after that hold the same elements, and none of others."""

    before: list[int] = field(default_factory=list)
    after: list[int] = field(default_factory=list)


def _blocks(before: Sequence[int], after: Sequence[int]) -> list[_Block]:
    """Cut two shapes into the smallest parts whose sizes multiply to the same; without 1s."""
    left = [axis for axis, size in enumerate(before) if size > 1]
    right = [axis for axis, size in enumerate(after) if size > 1]
    blocks = []
    while left and right:
        block = _Block([left.pop(0)], [right.pop(0)])
        products = [before[block.before[0]], after[block.after[0]]]
        while products[0] != products[1]:
            if products[0] < products[1]:
                block.before.append(left.pop(0))
                products[0] *= before[block.before[-1]]
            else:
                block.after.append(right.pop(0))
                products[1] *= after[block.after[-1]]
        blocks.append(block)
    return blocks


def _relate(op: Operator, before: list[Ids], after: list[Ids]) -> None:
    """Relate axes that hold the same elements: each is made of factors that both sides share."""
    sizes = _factors([len(each) for each in before], [len(each) for each in after])
    if sizes is None:
        op.freeze((*before, *after), f"{op.name} {CUTS_ACROSS}")
        return
    splits = [_split(sizes, [len(each) for each in side]) for side in (before, after)]
    factors = [op.elements.new(size) for size in sizes]
    for side, split in zip((before, after), splits, strict=True):
        for whole, places in zip(side, split, strict=True):
            op.merge(whole, [factors[place] for place in places])


def _factors(before: Sequence[int], after: Sequence[int]) -> list[int] | None:
    """Return sizes into which both shapes can be split, outermost first; None if none can be."""
    ends = [np.cumprod(each).tolist() for each in (before, after)]
    cuts = sorted({*ends[0], *ends[1]})
    sizes = []
    last = 1
    for cut in cuts:
        if cut % last:
            return None
        sizes.append(cut // last)
        last = cut
    return sizes


def _split(sizes: Sequence[int], axes: Sequence[int]) -> list[list[int]]:
    """Return for each axis the factors that it is made of."""
    split: list[list[int]] = []
    place = 0
    for axis in axes:
        split.append([])
        product = 1
        while product < axis:
            product *= sizes[place]
            split[-1].append(place)
            place += 1
    return split


RULES: dict[str, Callable[[Operator], None]] = {
    "Flatten": flatten,
    "Reshape": reshape,
    "Squeeze": squeeze,
    "Unsqueeze": unsqueeze,
}
