"""Writing QuantizeLinear and DequantizeLinear into a graph."""

from __future__ import annotations

from typing import TYPE_CHECKING

from onnxcomp.graph import Constant, Node, Variable
from onnxcomp.runtime.dtypes import is_float, onnx_number

if TYPE_CHECKING:
    from collections.abc import Sequence

    from onnxcomp_passes.quantize.grids import ActivationGrid
    from onnxcomp_passes.quantize.placement import Placement, Rounded


def insert(placement: Placement, grids: Sequence[ActivationGrid]) -> None:
    """Round tensors to their grids, for the operators that read integers.

    Args:
        placement: What is rounded; its model is changed.
        grids: The grid of each tensor.
    """
    for rounded, grid in zip(placement.tensors, grids, strict=True):
        _insert(placement, rounded, grid)


def _insert(placement: Placement, rounded: Rounded, grid: ActivationGrid) -> None:
    name, tensor = rounded.name, rounded.tensor
    steps = [Constant(f"{name}.scale", grid.scale.astype(rounded.dtype))]
    attributes = {}
    if is_float(grid.dtype):
        # By its zero point ONNX Runtime (1.32) takes it for an integer, takes away the Relu before
        # it, and cannot load a Clip there.
        attributes["output_dtype"] = onnx_number(grid.dtype)
    else:
        steps.append(Constant(f"{name}.zero_point", grid.zero_point))
    codes = Variable(f"{name}.quantized", grid.dtype, tensor.shape)
    result = Variable(f"{name}.dequantized", tensor.dtype, tensor.shape)
    made = [
        Node("QuantizeLinear", codes.name, attributes, [*steps], [codes]),
        Node("DequantizeLinear", result.name, {}, [codes, *steps], [result]),
    ]
    placement.replace(rounded, result, made)
