"""Models that are quantized already: refused, or made float again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import ml_dtypes
import numpy as np

from onnxcomp.errors import OptionError
from onnxcomp.graph import Constant, constant_of, is_fixed, store_of, weights
from onnxcomp.stores import AffineStore
from onnxcomp_passes.quantize.unfusing import unfuse

if TYPE_CHECKING:
    import onnx_graphsurgeon as gs
    from numpy.typing import NDArray

    from onnxcomp.graph import Graph, Model
    from onnxcomp.pipeline import Pass

CODES_INPUTS = {
    "ConvInteger": (0, 1),
    "DequantizeLinear": (0,),
    "MatMulInteger": (0, 1),
    "MatMulNBits": (1,),
    "QGemm": (0, 3),
    "QLinearConv": (0, 3),
    "QLinearMatMul": (0, 3),
}
"""Operators that compute with integers, and the inputs at which they take codes of weights."""

CODES = {
    np.dtype(kind)
    for kind in (
        *(np.int8, np.uint8, np.int16, np.uint16),
        *(ml_dtypes.int4, ml_dtypes.uint4, ml_dtypes.int2, ml_dtypes.uint2),
        *(ml_dtypes.float8_e4m3fn, ml_dtypes.float8_e5m2),
    )
}
"""Element types of weights that are quantized."""

NAMED = 3
"""Tensors that a message names."""


def check_unquantized(model: Model, one: Pass, *, is_taken_out: bool) -> None:
    """Refuse a model of which tensors that are to be quantized are so already.

    Args:
        model: The model.
        one: The pass, which selects tensors.
        is_taken_out: Whether what is known of quantization was taken out before.

    Raises:
        OptionError: It is.
    """
    found = [
        str(tensor.name)
        for scope in model.all_scopes()
        for node in scope.nodes
        for place in CODES_INPUTS.get(node.op, ())
        for tensor in node.inputs[place : place + 1]
        if isinstance(tensor, Constant) and tensor.shape and tensor.dtype in CODES
    ]
    found += [
        each.name
        for each in weights(model)
        if isinstance(store := store_of(each.tensor), AffineStore) and store.is_dequantized
    ]
    found = [name for name in dict.fromkeys(found) if one.selects(name)]
    if found:
        more = f" and {len(found) - NAMED} more" if len(found) > NAMED else ""
        how = (
            "in a way that --requantize does not know; quantize the float model"
            if is_taken_out
            else "already; quantize the float model, or give --requantize"
        )
        raise OptionError(
            f"{one.name}: {', '.join(map(repr, found[:NAMED]))}{more} are quantized {how}"
        )


def dequantize(model: Model) -> None:
    """Make weights float again, and take out of a model what rounds between float operators.

    Operators that compute with integers and are not known here stay.
    """
    unfuse(model)
    for each in weights(model):
        if isinstance(store_of(each.tensor), AffineStore):
            each.tensor.values = each.load()
    for scope in model.all_scopes():
        for node in list(scope.nodes):
            if node.op == "DequantizeLinear":
                _take_out(node, scope)
        # What quantized for those alone has no reader any more.
        scope.nodes = [
            node
            for node in scope.nodes
            if node.op != "QuantizeLinear" or node.outputs[0].outputs or _is_given(node, scope)
        ]


def _is_given(node: gs.Node, scope: Graph) -> bool:
    return any(each is node.outputs[0] for each in scope.outputs)


def _take_out(node: gs.Node, scope: Graph) -> None:
    codes, result = node.inputs[0], node.outputs[0]
    maker = codes.inputs[0] if codes.inputs else None
    if is_fixed(codes) and all(is_fixed(each) for each in node.inputs if each.name):
        new: gs.Tensor = Constant(result.name, _decoded(node))
    elif maker is not None and maker.op == "QuantizeLinear":
        new = maker.inputs[0]
    else:
        return
    if _is_given(node, scope):
        return
    for reader in list(result.outputs):
        reader.inputs = [new if each is result else each for each in reader.inputs]
    node.inputs.clear()
    node.outputs.clear()
    scope.nodes = [each for each in scope.nodes if each is not node]


def _decoded(node: gs.Node) -> NDArray[Any]:
    """Return what a DequantizeLinear of constants gives."""
    codes, scale, *rest = (constant_of(each).values for each in node.inputs if each.name)
    axis = int(node.attrs.get("axis", 1)) % max(codes.ndim, 1)
    block_size = int(node.attrs.get("block_size", 0))

    def spread(values: NDArray[Any]) -> NDArray[np.float32]:
        values = values.astype(np.float32)
        if block_size:
            return np.take(np.repeat(values, block_size, axis), range(codes.shape[axis]), axis)
        if values.size == 1:
            return values.reshape(())
        return values.reshape([-1 if at == axis else 1 for at in range(codes.ndim)])

    centred = codes.astype(np.float32) - (spread(rest[0]) if rest else np.float32(0))
    result: NDArray[Any] = (centred * spread(scale)).astype(scale.dtype)
    return result
