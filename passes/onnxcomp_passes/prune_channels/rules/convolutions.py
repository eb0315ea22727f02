"""Convolutions: each output channel sums input channels over a window, times weights."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from onnxcomp_passes.prune_channels.elements import Ids
    from onnxcomp_passes.prune_channels.operators import Operator

COMPUTED = "its weight is computed"


def convolution(op: Operator) -> None:
    """Input channels are consumed by axis 1 of the weight, output channels produced by axis 0.

    A Conv in groups loses the same places of all groups, or whole groups; of a depthwise one, a
    channel is its group. Weights: (out, in / groups, ...).
    """
    x, weight, output = op.input(0), op.input(1), op.output()
    groups = int(op.attribute("group", 1))
    _surround(op, x, weight, output)
    if groups == 1:
        op.join(x[1], weight[1])
        op.join(weight[0], output[1])
    else:
        group = op.elements.new(groups)
        produced = op.elements.new(len(output[1]) // groups)
        op.merge(x[1], (group, weight[1]), "inner")
        op.merge(weight[0], (group, produced), "inner")
        op.merge(output[1], (group, produced), "inner")
        op.count_attribute("group", group)
    is_depthwise = groups == len(x[1])
    op.use(1, 0, "follows" if is_depthwise and groups == len(output[1]) else "produces")
    op.use(1, 1, "consumes")


def transposed_convolution(op: Operator) -> None:
    """As `convolution`; weights: (in, out / groups, ...)."""
    x, weight, output = op.input(0), op.input(1), op.output()
    groups = int(op.attribute("group", 1))
    _surround(op, x, weight, output)
    if groups == 1:
        op.join(x[1], weight[0])
        op.join(weight[1], output[1])
    else:
        group = op.elements.new(groups)
        consumed = op.elements.new(len(x[1]) // groups)
        op.merge(x[1], (group, consumed), "inner")
        op.merge(weight[0], (group, consumed), "inner")
        op.merge(output[1], (group, weight[1]), "inner")
        op.count_attribute("group", group)
    is_depthwise = groups == len(x[1])
    op.use(1, 0, "follows" if is_depthwise and groups == len(output[1]) else "consumes")
    op.use(1, 1, "produces")


def _surround(op: Operator, x: list[Ids], weight: list[Ids], output: list[Ids]) -> None:
    """Join what both kinds have in common: batch and bias; the axes of the window stay."""
    op.join(x[0], output[0])
    if op.has(2):
        op.join(op.input(2)[0], output[1])
        op.use(2, 0, "follows")
    op.freeze((*x[2:], *weight[2:], *output[2:]), f"{op.name} slides along it")
    if not op.is_fixed(1):
        op.freeze((x[1], *weight[:2]), COMPUTED)


RULES: dict[str, Callable[[Operator], None]] = {
    "Conv": convolution,
    "ConvTranspose": transposed_convolution,
}
