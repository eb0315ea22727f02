"""Matrix products of integers whose activations are rounded as they come.

Standard operators only: DynamicQuantizeLinear, MatMulInteger, Cast and Mul, which ONNX Runtime
fuses into one (DynamicQuantizeMatMul).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from onnxcomp.graph import Constant, Node, Variable, store_of
from onnxcomp.statistics import layers
from onnxcomp.stores import AffineStore

if TYPE_CHECKING:
    from collections.abc import Collection

    import onnx_graphsurgeon as gs

    from onnxcomp.graph import Model
    from onnxcomp.statistics import Layer, Use

    Rounded = tuple[Variable, Variable, Variable]

BIAS = 2
"""The input at which a Gemm takes its bias."""

FLOAT = 1
"""The element type of `onnx.TensorProto` that sums are cast to."""


def is_dynamic(use: Use, weight_dtype: np.dtype[np.generic]) -> bool:
    """Whether an operator can be written so."""
    node = use.node
    if node.op not in {"MatMul", "Gemm"} or use.place != 1 or weight_dtype != np.float32:
        return False
    plain = {"alpha": 1.0, "beta": 1.0, "transA": 0}
    return all(node.attrs.get(key, value) == value for key, value in plain.items())


def rewrite_dynamic(model: Model, keys: Collection[str]) -> None:
    """Let layers whose weights are coded compute with integers.

    Args:
        model: The model; the weights of these layers have a scale for each output.
        keys: The layers.
    """
    rounded: dict[tuple[int, int], Rounded] = {}
    for layer in layers(model):
        if layer.key in keys:
            codes, scale, zeros = _operands(layer)
            for use in layer.uses:
                _rewrite(use, rounded, codes, scale, zeros)


def _operands(layer: Layer) -> tuple[Constant, Constant, Constant]:
    """Return a weight's codes, shape (inputs, outputs), their scale and their zero points."""
    store, name = store_of(layer.weight.tensor), layer.name
    assert isinstance(store, AffineStore)  # noqa: S101 - it was coded for this
    assert store.scale is not None  # noqa: S101 - it was coded for this
    codes = layer.form.to_matrices(store.codes)[0].T
    return (
        Constant(f"{name}.codes", np.ascontiguousarray(codes)),
        Constant(f"{name}.scale", store.scale),
        Constant(f"{name}.zero_point", np.zeros(store.scale.shape, store.codes.dtype)),
    )


def _rewrite(
    use: Use,
    rounded: dict[tuple[int, int], Rounded],
    codes: Constant,
    scale: Constant,
    zeros: Constant,
) -> None:
    node, scope = use.node, use.scope
    read = node.inputs[0]
    key = id(read), id(scope)
    made: list[Node] = []
    if key not in rounded:
        number = sum(other == id(read) for other, _ in rounded)
        # What a body makes may not have the name of what is made outside.
        rounded[key] = _round(read, f"{read.name}.{number}" if number else str(read.name), made)
    activation, step, zero = rounded[key]
    output = node.outputs[0]
    bias = next((each for each in node.inputs[BIAS:] if each.name), None)
    name = output.name
    names = [f"{name}.{what}" for what in ("sum", "float", "factor", "product")]
    total, single, steps, scaled = (Variable(each) for each in names)
    last = output if bias is None else scaled
    made += [
        Node("MatMulInteger", names[0], {}, [activation, codes, zero, zeros], [total]),
        Node("Cast", names[1], {"to": FLOAT}, [total], [single]),
        Node("Mul", names[2], {}, [step, scale], [steps]),
    ]
    node.inputs.clear()
    node.outputs.clear()
    made.append(Node("Mul", names[3], {}, [single, steps], [last]))
    if bias is not None:
        made.append(Node("Add", name, {}, [scaled, bias], [output]))
    place = next(place for place, each in enumerate(scope.nodes) if each is node)
    scope.nodes[place : place + 1] = made


def _round(read: gs.Tensor, name: str, made: list[Node]) -> Rounded:
    codes, step, zero = (Variable(f"{name}.{what}") for what in ("codes", "step", "zero"))
    made.append(Node("DynamicQuantizeLinear", codes.name, {}, [read], [codes, step, zero]))
    return codes, step, zero
