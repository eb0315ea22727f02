"""Matrix products with an addition, as the Gemm that ONNX Runtime makes of them anyway."""

from __future__ import annotations

from typing import TYPE_CHECKING

from onnxcomp.graph import is_fixed
from onnxcomp.statistics import layers

if TYPE_CHECKING:
    from collections.abc import Collection

    import onnx_graphsurgeon as gs

    from onnxcomp.graph import Constant, Model
    from onnxcomp.statistics import Use

MATRIX = 2


def write_gemms(model: Model, keys: Collection[str]) -> None:
    """Write the MatMul of two matrices, with a constant row that is added, as Gemm.

    ONNX Runtime makes a Gemm of such a MatMul and Add after it has looked for integer kernels, and
    of a Gemm there is one only if its bias is an integer. Where more than a row is added, or only
    later a bias, it lets a Gemm be.

    Args:
        model: The model; changed in place, what it computes stays.
        keys: The layers that will compute with integers.
    """
    for layer in layers(model):
        if layer.key in keys and all(_is_plain(use) for use in layer.uses):
            for use in layer.uses:
                use.node.op = "Gemm"
                _take_addition(use)


def _is_plain(use: Use) -> bool:
    shape = use.node.inputs[0].shape
    is_product = use.node.op == "MatMul" and use.place == 1
    return is_product and shape is not None and len(shape) == MATRIX


def _take_addition(use: Use) -> None:
    added = _addition(use)
    if added is None:
        return
    node, bias = added
    output = node.outputs[0]
    node.inputs.clear()
    node.outputs.clear()
    use.scope.nodes = [each for each in use.scope.nodes if each is not node]
    use.node.inputs = [*use.node.inputs, bias]
    use.node.outputs = [output]


def _addition(use: Use) -> tuple[gs.Node, Constant] | None:
    """Return the Add that alone reads a product, and the row of constants that it adds."""
    output = use.node.outputs[0]
    if len(output.outputs) != 1 or any(output is each for each in use.scope.outputs):
        return None
    (node,) = output.outputs
    if node.op != "Add" or all(node is not each for each in use.scope.nodes):
        return None
    bias = node.inputs[int(node.inputs[0] is output)]
    if not is_fixed(bias) or tuple(bias.shape) != use.form.matrices[1:2]:
        return None
    return node, bias
