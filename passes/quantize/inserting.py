"""Writing QuantizeLinear and DequantizeLinear into a graph."""

from __future__ import annotations

from typing import TYPE_CHECKING

from onnxcomp.graph import Constant, Node, Variable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from passes.quantize.grids import ActivationGrid
    from passes.quantize.placement import Placement, Rounded


def insert(placement: Placement, grids: Sequence[ActivationGrid]) -> None:
    """Round tensors to their grids, for the operators that read integers.

    Args:
        placement: What is rounded; its model is changed.
        grids: The grid of each tensor.
    """
    # A branch that rounds what it reads from outside has to find it before all readers get it
    # rounded outside.
    pairs = zip(placement.tensors, grids, strict=True)
    for rounded, grid in sorted(pairs, key=lambda each: each[0].is_given):
        _insert(placement, rounded, grid)


def _insert(placement: Placement, rounded: Rounded, grid: ActivationGrid) -> None:
    name, tensor = rounded.label, rounded.tensor
    scale = Constant(f"{name}.scale", grid.scale.astype(rounded.dtype))
    zero_point = Constant(f"{name}.zero_point", grid.zero_point)
    codes = Variable(f"{name}.quantized", grid.zero_point.dtype, tensor.shape)
    result = Variable(f"{name}.dequantized", tensor.dtype, tensor.shape)
    made = [
        Node("QuantizeLinear", codes.name, {}, [scale, zero_point], [codes]),
        Node("DequantizeLinear", result.name, {}, [codes, scale, zero_point], [result]),
    ]
    placement.replace(rounded, result, made)
