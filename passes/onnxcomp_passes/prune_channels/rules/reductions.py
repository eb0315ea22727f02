"""Operators that mix along axes without a weight: those axes stay, the others follow."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from onnxcomp_passes.prune_channels.operators import Operator

REDUCTIONS = {
    *("ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceMax", "ReduceMean"),
    *("ReduceMin", "ReduceProd", "ReduceSum", "ReduceSumSquare"),
}

SOFTMAX_BY_AXIS = 13
"""The opset before which Softmax takes all axes from one on for one axis."""


def pooling(op: Operator) -> None:
    """Windows slide along the plane; channels stay apart."""
    x, output = op.input(0), op.output()
    op.join_axes(x[:2], output[:2])
    op.freeze((*x[2:], *output[2:]), f"{op.name} slides along it")
    if op.output(1):
        # Positions in the whole tensor, channels included.
        op.freeze((*x, *op.output(1)), f"{op.name} gives positions in it")


def reduction(op: Operator) -> None:
    """The axes that are reduced stay; the others follow."""
    x = op.input(0)
    axes = op.constant(1) if op.has(1) else op.attribute("axes")
    if axes is None and op.has(1):
        op.freeze_all(f"{op.name} along axes that are computed")
        return
    if axes is None or not len(axes):
        axes = [] if op.attribute("noop_with_empty_axes", 0) else range(len(x))
    _reduce(op, {int(axis) % len(x) for axis in axes} if x else set())


def argument(op: Operator) -> None:
    """The axis in which a place is looked for stays; the others follow."""
    _reduce(op, {op.axis(len(op.input(0)))})


def _reduce(op: Operator, axes: set[int]) -> None:
    x, output = op.input(0), op.output()
    kept = [axis for axis in range(len(x)) if axis not in axes]
    op.freeze((x[axis] for axis in axes), op.mixes)
    given = [output[axis] for axis in kept] if op.attribute("keepdims", 1) else output
    op.join_axes((x[axis] for axis in kept), given)


def along_axis(op: Operator) -> None:
    """One axis is mixed along and stays; the shape does not change."""
    x = op.input(0)
    op.join_axes(x, op.output())
    op.freeze([x[op.axis(len(x), -1)]], op.mixes)


def softmax(op: Operator) -> None:
    """As `along_axis`; early opsets take all axes from one on for one."""
    x = op.input(0)
    op.join_axes(x, op.output())
    if op.opset >= SOFTMAX_BY_AXIS:
        op.freeze([x[op.axis(len(x), -1)]], op.mixes)
    else:
        op.freeze(x[op.axis(len(x), 1) :], op.mixes)


def cumulative_sum(op: Operator) -> None:
    """The axis summed along stays."""
    x, axes = op.input(0), op.constant(1)
    op.join_axes(x, op.output())
    op.freeze(x if axes is None else [x[int(axes[0])]], op.mixes)


def top(op: Operator) -> None:
    """The axis in which the largest are looked for stays; the others follow."""
    x = op.input(0)
    axis = op.axis(len(x), -1)
    for place in (0, 1):
        for at, ids in enumerate(op.output(place)):
            if at == axis:
                op.freeze((ids, x[at]), op.mixes)
            else:
                op.join(ids, x[at])


def over_planes(op: Operator) -> None:
    """Everything behind the channels is mixed; batch and channels follow."""
    x, output = op.input(0), op.output()
    op.join_axes(x[:2], output[:2])
    op.freeze((*x[2:], *output[2:]), op.mixes)


def local_response(op: Operator) -> None:
    """Neighbouring channels are mixed, and stay."""
    x = op.input(0)
    op.join_axes(x, op.output())
    op.freeze([x[1]], op.mixes)


def mean_variance(op: Operator) -> None:
    """The axes over which means are taken stay."""
    x = op.input(0)
    op.join_axes(x, op.output())
    op.freeze((x[axis] for axis in op.attribute("axes", [0, 2, 3])), op.mixes)


def triangle(op: Operator) -> None:
    """What of a matrix is kept depends on the place in it: its axes stay."""
    x = op.input(0)
    op.join_axes(x, op.output())
    op.freeze(x[-2:], f"{op.name} cuts by places in it")


RULES: dict[str, Callable[[Operator], None]] = {
    **dict.fromkeys(REDUCTIONS, reduction),
    **dict.fromkeys(("ArgMax", "ArgMin"), argument),
    **dict.fromkeys(("Hardmax", "LogSoftmax", "Softmax"), softmax),
    **dict.fromkeys(("AveragePool", "LpPool", "MaxPool"), pooling),
    **dict.fromkeys(("GlobalAveragePool", "GlobalLpPool", "GlobalMaxPool"), over_planes),
    "CumSum": cumulative_sum,
    "LRN": local_response,
    "LpNormalization": along_axis,
    "MeanVarianceNormalization": mean_variance,
    "TopK": top,
    "Trilu": triangle,
}
