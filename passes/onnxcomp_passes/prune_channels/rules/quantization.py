"""QuantizeLinear and DequantizeLinear: each element by itself, with scales along an axis."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from onnxcomp_passes.prune_channels.operators import Operator


def quantization(op: Operator) -> None:
    """Each element is rounded, or was; scales and zero points of an axis follow it.

    Scales of blocks stay, and so does what they scale.
    """
    x = op.input(0)
    op.join_axes(x, op.output())
    for place in (1, 2):
        scales = op.input(place)
        if op.attribute("block_size", 0):
            op.freeze((*scales, *x), f"{op.name} scales blocks of it")
        elif scales and len(scales[0]) > 1:
            op.join(scales[0], x[op.axis(len(x), 1)])
            op.use(place, 0, "follows")


RULES: dict[str, Callable[[Operator], None]] = {
    "DequantizeLinear": quantization,
    "QuantizeLinear": quantization,
}
