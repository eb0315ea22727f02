"""Keeping ONNX Runtime from rounding weights that nobody rounded.

Where a Conv, ConvTranspose or Gemm with float weights stands between DequantizeLinear and
QuantizeLinear, ONNX Runtime (WeightBiasQuantization) rounds them to 8 bits with one scale for the
whole tensor, which ruins depthwise convolutions. A Clip that clips nothing, behind the
DequantizeLinear, hides it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from onnxcomp.graph import Constant, Node, Variable
from onnxcomp.statistics import layers

if TYPE_CHECKING:
    import onnx_graphsurgeon as gs

    from onnxcomp.graph import Graph, Model
    from onnxcomp.statistics import Use
    from onnxcomp_passes.quantize.placement import Placement

ROUNDED_UNASKED = {"Conv", "ConvTranspose", "Gemm"}
PASSED = {"Relu", "Clip"}


def shield(model: Model, placement: Placement) -> None:
    """Hide what float layers read from ONNX Runtime where it would round their weights.

    Args:
        model: The model, whose activations are rounded.
        placement: What is computed with integers.
    """
    for layer in layers(model):
        for use in layer.uses:
            node = use.node
            is_float = id(node) not in placement.nodes and node.op in ROUNDED_UNASKED
            if is_float and _reads_integers(node) and _gives_integers(node):
                _hide(use, layer.weight.dtype)


def _reads_integers(node: gs.Node) -> bool:
    makers = node.inputs[0].inputs
    return bool(makers) and makers[0].op == "DequantizeLinear"


def _gives_integers(node: gs.Node) -> bool:
    while len(readers := node.outputs[0].outputs) == 1:
        if readers[0].op == "QuantizeLinear":
            return True
        if readers[0].op not in PASSED:
            return False
        node = readers[0]
    return False


def _hide(use: Use, dtype: np.dtype[np.generic]) -> None:
    scope: Graph = use.scope
    read = use.node.inputs[0]
    name = f"{use.node.outputs[0].name}.shield"
    limit = np.finfo(np.float32).max
    ends = [
        Constant(f"{name}.{key}", np.array(value, dtype))
        for key, value in (("low", -limit), ("high", limit))
    ]
    hidden = Variable(name, read.dtype, read.shape)
    scope.nodes.append(Node("Clip", name, {}, [read, *ends], [hidden]))
    use.node.inputs[0] = hidden
