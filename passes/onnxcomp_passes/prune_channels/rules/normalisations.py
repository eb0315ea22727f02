"""Normalisations: by the statistics of a channel, of all channels, or of none."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from onnxcomp_passes.prune_channels.operators import Operator

SCALED_BY_CHANNEL = 21
"""The opset from which GroupNormalization has a scale for each channel, and not for each group."""


def batch_normalization(op: Operator) -> None:
    """Each channel has its own numbers, and statistics over everything else."""
    x, output = op.input(0), op.output()
    op.join_axes(x, output)
    for place in range(1, len(op.node.inputs)):
        op.join(op.input(place)[0], x[1])
        op.use(place, 0, "follows")
    for place in range(1, len(op.node.outputs)):
        if op.output(place):
            op.join(op.output(place)[0], x[1])
    if op.attribute("training_mode", 0):
        op.freeze((x[0], *x[2:]), op.mixes)


def instance_normalization(op: Operator) -> None:
    """Each channel has its own numbers, and statistics over its plane, which stays."""
    x = op.input(0)
    op.join_axes(x, op.output())
    op.freeze(x[2:], op.mixes)
    for place in (1, 2):
        op.join(op.input(place)[0], x[1])
        op.use(place, 0, "follows")


def group_normalization(op: Operator) -> None:
    """Statistics over the channels of a group and the plane: only whole groups may go."""
    x = op.input(0)
    op.join_axes(x, op.output())
    op.freeze(x[2:], op.mixes)
    group = op.elements.new(int(op.attribute("num_groups")))
    members = x[1].reshape(len(group), -1)
    op.join(members, group[:, None].repeat(members.shape[1], axis=1))
    for place in (1, 2):
        op.join(op.input(place)[0], x[1] if op.opset >= SCALED_BY_CHANNEL else group)
        op.use(place, 0, "follows")
    op.count_attribute("num_groups", group)


def layer_normalization(op: Operator) -> None:
    """Statistics over the last axes, which stay with the numbers that belong to them."""
    x = op.input(0)
    axis = op.axis(len(x), -1)
    op.join_axes(x, op.output())
    op.freeze(x[axis:], op.mixes)
    for place in range(1, len(op.node.inputs)):
        op.freeze(op.input(place), op.mixes)
    for place in range(1, len(op.node.outputs)):
        if op.output(place):
            op.join_axes(x[:axis], op.output(place)[:axis])


RULES: dict[str, Callable[[Operator], None]] = {
    "BatchNormalization": batch_normalization,
    "GroupNormalization": group_normalization,
    "InstanceNormalization": instance_normalization,
    "LayerNormalization": layer_normalization,
    "RMSNormalization": layer_normalization,
}
