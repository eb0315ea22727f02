"""Rectifiers that do not keep ONNX Runtime from computing the layer before them with integers.

ONNX Runtime (1.31, 1.32) looks through a Relu for the QuantizeLinear that makes it needless, and
where something else reads it too finds no integer kernel for the MatMul or Gemm before. It does
not look through a Max with zero, which is the same.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from onnxcomp.graph import Constant
from onnxcomp.statistics import layers

if TYPE_CHECKING:
    import onnx_graphsurgeon as gs

    from onnxcomp.graph import Model
    from onnxcomp_passes.quantize.placement import Placement

PRODUCTS = {"Gemm", "MatMul"}
"""Layers that give floats, which something may read as they are."""


def write_maxima(model: Model, placement: Placement) -> None:
    """Write Max for each Relu behind a layer of integers that not only roundings read.

    Args:
        model: The model, whose activations are rounded.
        placement: What is computed with integers.
    """
    given = {id(each) for scope in model.all_scopes() for each in scope.outputs}
    for layer in layers(model):
        for use in layer.uses:
            if use.node.op not in PRODUCTS or id(use.node) not in placement.nodes:
                continue
            for reader in use.node.outputs[0].outputs:
                output = reader.outputs[0]
                if reader.op == "Relu" and (id(output) in given or not _is_rounded(output)):
                    zero = np.zeros((), layer.weight.dtype)
                    reader.op = "Max"
                    reader.inputs = [*reader.inputs, Constant(f"{output.name}.least", zero)]


def _is_rounded(tensor: gs.Tensor) -> bool:
    return all(reader.op == "QuantizeLinear" for reader in tensor.outputs)
