"""Operators of integers, written as what they do with floats.

QLinearConv and QLinearMatMul become a Conv and a MatMul between DequantizeLinear and
QuantizeLinear. What quantizers write for products whose activations are rounded as they come
(DynamicQuantizeLinear, MatMulInteger, Cast, and a Mul by both scales) becomes a MatMul.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from onnxcomp.graph import Constant, Node, Variable, constant_of, is_fixed

if TYPE_CHECKING:
    import onnx_graphsurgeon as gs
    from numpy.typing import NDArray

    from onnxcomp.graph import Graph, Model

FLOAT_OPERATORS = {"QLinearConv": "Conv", "QLinearMatMul": "MatMul"}

BIAS = 8
"""The input at which a QLinearConv takes its bias."""

DYNAMIC = "DynamicQuantizeLinear"


def unfuse(model: Model) -> None:
    """Write operators of integers with constant weights as float ones; others stay."""
    for scope in model.all_scopes():
        for node in list(scope.nodes):
            if node.op in FLOAT_OPERATORS and all(is_fixed(each) for each in node.inputs[3:]):
                _between_roundings(node, scope)
            elif node.op == "MatMulInteger":
                _undo_dynamic(node, scope)
        scope.nodes = [node for node in scope.nodes if node.outputs]


def _between_roundings(node: gs.Node, scope: Graph) -> None:
    read, read_scale, read_zero, *_ = node.inputs
    codes, scale, zero, given_scale, given_zero, *_ = map(constant_of, node.inputs[3:])
    name, dtype = node.outputs[0].name, scale.dtype
    axis = 0 if node.op == "QLinearConv" else -1
    weight = Constant(
        f"{codes.name}.float", _decoded(codes.values, scale.values, zero.values, axis)
    )
    floats, result = Variable(f"{name}.read", dtype), Variable(f"{name}.float", dtype)
    inputs = [floats, weight]
    if len(node.inputs) > BIAS and node.inputs[BIAS].name and is_fixed(read_scale):
        steps = read_scale.values * scale.values
        bias = (constant_of(node.inputs[BIAS]).values * steps).astype(dtype)
        inputs.append(Constant(f"{name}.bias", bias))
    made = [
        Node("DequantizeLinear", floats.name, {}, [read, read_scale, read_zero], [floats]),
        Node(FLOAT_OPERATORS[node.op], result.name, dict(node.attrs), inputs, [result]),
        Node("QuantizeLinear", name, {}, [result, given_scale, given_zero], [node.outputs[0]]),
    ]
    _replace(node, made, scope)


def _undo_dynamic(node: gs.Node, scope: Graph) -> None:
    """Multiply floats where the two scales are multiplied with the sums at the end."""
    found = _pattern(node, scope)
    if found is None:
        return
    rounding, cast, factor, product = found
    scale = factor.inputs[int(factor.inputs[0] is rounding.outputs[1])]
    codes, zero = node.inputs[1], next(iter(node.inputs[3:4]), None)
    if not is_fixed(codes) or not is_fixed(scale) or not (zero is None or is_fixed(zero)):
        return
    least = np.zeros((), codes.dtype) if zero is None else zero.values
    values = _decoded(codes.values, scale.values, least, -1)
    weight = Constant(f"{codes.name}.float", values)
    output = product.outputs[0]
    made = [Node("MatMul", str(output.name), {}, [rounding.inputs[0], weight], [output])]
    for gone in (node, cast):
        gone.outputs.clear()
    _replace(product, made, scope)
    own = {id(each) for each in scope.nodes}
    given = {id(each) for each in scope.outputs}
    for gone in (node, cast, factor, rounding):
        is_read = any(each.outputs or id(each) in given for each in gone.outputs)
        if id(gone) in own and not is_read:
            gone.inputs.clear()
            gone.outputs.clear()


def _pattern(node: gs.Node, scope: Graph) -> tuple[gs.Node, gs.Node, gs.Node, gs.Node] | None:
    """Return what rounds for a MatMulInteger, its Cast, the Mul of scales, and that by both."""
    rounding, cast = _maker(node.inputs[0]), _only_reader(node.outputs[0], scope)
    if rounding is None or rounding.op != DYNAMIC or cast is None or cast.op != "Cast":
        return None
    product = _only_reader(cast.outputs[0], scope)
    if product is None or product.op != "Mul":
        return None
    factor = _maker(product.inputs[int(product.inputs[0] is cast.outputs[0])])
    if factor is None or factor.op != "Mul":
        return None
    is_known = any(each is rounding.outputs[1] for each in factor.inputs)
    return (rounding, cast, factor, product) if is_known else None


def _replace(node: gs.Node, made: list[Node], scope: Graph) -> None:
    place = next(place for place, each in enumerate(scope.nodes) if each is node)
    outputs = list(node.outputs)
    node.inputs.clear()
    node.outputs.clear()
    made[-1].outputs = outputs
    scope.nodes[place : place + 1] = made


def _decoded(
    codes: NDArray[Any], scale: NDArray[Any], zero: NDArray[Any], axis: int
) -> NDArray[Any]:
    """Return the floats of codes, with one scale or one along an axis."""

    def spread(values: NDArray[Any]) -> NDArray[Any]:
        if values.size == 1:
            return values.reshape(())
        return values.reshape([-1 if at == axis % codes.ndim else 1 for at in range(codes.ndim)])

    centred = codes.astype(np.float32) - spread(zero).astype(np.float32)
    result: NDArray[Any] = (centred * spread(scale)).astype(scale.dtype)
    return result


def _maker(tensor: gs.Tensor) -> gs.Node | None:
    return tensor.inputs[0] if tensor.inputs else None


def _only_reader(tensor: gs.Tensor, scope: Graph) -> gs.Node | None:
    if len(tensor.outputs) != 1 or any(each is tensor for each in scope.outputs):
        return None
    reader = tensor.outputs[0]
    return reader if any(each is reader for each in scope.nodes) else None
