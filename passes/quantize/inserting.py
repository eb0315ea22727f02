"""Writing QuantizeLinear and DequantizeLinear into a graph."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from onnxcomp.graph import Constant, Node, StoreValues, Variable
from onnxcomp.stores import AffineStore

if TYPE_CHECKING:
    from collections.abc import Sequence

    import onnx_graphsurgeon as gs
    from numpy.typing import NDArray

    from passes.quantize.grids import ActivationGrid
    from passes.quantize.placement import Placement, Rounded


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
    scale = Constant(f"{name}.scale", grid.scale.astype(rounded.dtype))
    zero_point = Constant(f"{name}.zero_point", grid.zero_point)
    codes = Variable(f"{name}.quantized", grid.zero_point.dtype, tensor.shape)
    result = Variable(f"{name}.dequantized", tensor.dtype, tensor.shape)
    made = [
        Node("QuantizeLinear", codes.name, {}, [scale, zero_point], [codes]),
        Node("DequantizeLinear", result.name, {}, [codes, scale, zero_point], [result]),
    ]
    placement.replace(rounded, result, made)


def read_scale(node: gs.Node, place: int) -> float | None:
    """Return the scale of what an operator reads; None where that is not rounded."""
    tensor = node.inputs[place]
    maker = tensor.inputs[0] if tensor.inputs else None
    if maker is None or maker.op != "DequantizeLinear":
        return None
    return float(maker.inputs[1].values)


def integer_bias(
    bias: NDArray[np.floating], scale: NDArray[np.float32], opset: int
) -> StoreValues:
    """Return a bias as the integers that a kernel adds to its sums.

    Args:
        bias: Shape (channels,).
        scale: Of the sums: of what is read times the weight's, shape (channels,) or ().
        opset: The model's opset.
    """
    limit = np.iinfo(np.int32).max
    codes = np.clip(np.rint(bias.astype(np.float64) / scale), -limit, limit).astype(np.int32)
    return StoreValues(
        AffineStore(codes.shape, bias.dtype, codes, opset, scale.astype(np.float32))
    )
