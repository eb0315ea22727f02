"""Adding to what a layer gives: into its bias, or into one that it gets."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from onnxcomp.graph import Constant, Node, Variable, constant_of, is_fixed
from onnxcomp.graph.operators import OPERATORS, PRODUCTS, RECURRENCES

if TYPE_CHECKING:
    import onnx_graphsurgeon as gs
    from numpy.typing import NDArray

    from onnxcomp.graph import Graph
    from onnxcomp.statistics import Use

    Floats = NDArray[np.float64]

NODE_BYTES = 96
"""What an added node with its names takes, about."""


def takes_bias(use: Use) -> bool:
    """Whether `add_bias` can correct this operator."""
    node = use.node
    if node.op in PRODUCTS and use.place != 1:
        return False
    if node.op == "Gemm" and (not node.attrs.get("alpha", 1.0) or not node.attrs.get("beta", 1.0)):
        return False
    known = OPERATORS.get(node.op)
    place = None if known is None else known.bias
    if place is None:
        return bool(node.op == "MatMul")
    given = node.inputs[place : place + 1]
    return not given or not given[0].name or is_fixed(given[0])


def bias_bytes(use: Use, dtype: np.dtype[Any]) -> int:
    """Return what `add_bias` adds to the model, in bytes."""
    nothing = np.zeros(use.form.matrices[:2])
    if use.node.op != "MatMul":
        old = _own_bias(use)
        new = _combined(use, nothing, None if old is None else old.values).size
        return int(new * dtype.itemsize - _freed_bytes(old))
    following = _following_add(use)
    if following is None:
        return int(nothing.size * dtype.itemsize + NODE_BYTES)
    node, place = following
    old = constant_of(node.inputs[place])
    return int(old.values.size * dtype.itemsize - _freed_bytes(old))


def add_bias(use: Use, shift: Floats, dtype: np.dtype[Any]) -> None:
    """Add a constant to what an operator computes.

    Args:
        use: The operator; `takes_bias` says whether it can be done.
        shift: What is added to each output of the use's matrices, shape (groups, outputs).
        dtype: Element type of the operator's output.
    """
    node = use.node
    if node.op == "MatMul":
        _add_after(use, shift.reshape(-1), dtype)
        return
    place = _bias_index(node)
    old = _own_bias(use)
    new = _combined(use, shift, None if old is None else old.values)
    while len(node.inputs) <= place:
        node.inputs.append(Variable(""))
    node.inputs[place] = Constant(_bias_name(use), new.astype(dtype))


def bias_of(use: Use) -> Floats | None:
    """Return what is added to each output of an operator, where `add_bias` adds; zeros if nothing.

    Returns:
        Shape (groups, outputs), in the unit of `add_bias`; None where it is not one number each,
        and for operators other than MatMul, Gemm and Conv.
    """
    node, shape = use.node, use.form.matrices[:2]
    if not takes_bias(use) or node.op not in {"MatMul", "Gemm", "Conv"}:
        return None
    if node.op == "MatMul":
        following = _following_add(use)
        old = None if following is None else constant_of(following[0].inputs[following[1]])
    else:
        old = _own_bias(use)
    if old is None:
        return np.zeros(shape)
    values, count = old.values.astype(np.float64), prod(shape)
    if values.size != 1 and (values.size != count or values.shape[-1] != count):
        return None
    if node.op == "Gemm":
        values = values * (node.attrs.get("beta", 1.0) / node.attrs.get("alpha", 1.0))
    return np.broadcast_to(values.reshape(-1), count).reshape(shape)


def _freed_bytes(old: Constant | None) -> int:
    """Return what goes with a bias that is replaced: nothing if others read it too."""
    return int(old.nbytes) if old is not None and len(old.outputs) == 1 else 0


def _bias_index(node: gs.Node) -> int:
    index = OPERATORS[node.op].bias
    assert index is not None  # noqa: S101 - it takes one
    return index


def _own_bias(use: Use) -> Constant | None:
    given = use.node.inputs[_bias_index(use.node) :][:1]
    return given[0] if given and is_fixed(given[0]) else None


def _combined(use: Use, shift: Floats, old: NDArray[Any] | None) -> Floats:
    """Return the bias that an operator takes, with a shift of its outputs in it."""
    node, form = use.node, use.form
    if node.op == "ConvTranspose":
        # Each output gathers this many taps on average.
        strides = node.attrs.get("strides", [1] * (len(form.tensor) - 2))
        shift = shift.reshape(form.matrices[0], form.tensor[1], -1).sum(axis=2) / prod(strides)
    if node.op in RECURRENCES:
        directions, outputs = shift.shape
        both = np.zeros((directions, 2 * outputs)) if old is None else old.astype(np.float64)
        half = slice(outputs) if use.place == 1 else slice(outputs, None)
        both[:, half] += shift
        return both
    flat = shift.reshape(-1)
    if node.op == "Gemm":
        flat = flat * (node.attrs.get("alpha", 1.0) / node.attrs.get("beta", 1.0))
    return flat if old is None else old + flat


def _following_add(use: Use) -> tuple[gs.Node, int] | None:
    """Return the Add of a constant that alone reads a MatMul, and where it takes the constant.

    What a caller may override is not taken for one.
    """
    output = use.node.outputs[0]
    readers = list(output.outputs)
    is_given = any(output is each for each in use.scope.outputs)
    if len(readers) != 1 or is_given or readers[0].op != "Add":
        return None
    place = int(readers[0].inputs[0] is output)
    constant = readers[0].inputs[place]
    fits = is_fixed(constant) and tuple(constant.shape[-1:]) == use.form.matrices[1:2]
    return (readers[0], place) if fits else None


def _add_after(use: Use, shift: Floats, dtype: np.dtype[Any]) -> None:
    """Add to what a MatMul gives: into the Add that follows it, or a new one."""
    following = _following_add(use)
    if following is not None:
        node, place = following
        values = (constant_of(node.inputs[place]).values + shift).astype(dtype)
        node.inputs[place] = Constant(_bias_name(use), values)
        return
    node = use.node
    constant = Constant(_bias_name(use), shift.astype(dtype))
    output = node.outputs[0]
    inner = Variable(f"{constant.name}.before", output.dtype, output.shape)
    node.outputs[0] = inner
    added = Node("Add", f"{constant.name}.add", {}, [inner, constant], [output])
    _place_after(use.scope, node, added)


def _place_after(scope: Graph, node: gs.Node, added: gs.Node) -> None:
    place = next(place for place, each in enumerate(scope.nodes) if each is node)
    scope.nodes.insert(place + 1, added)


def _bias_name(use: Use) -> str:
    weight = use.node.inputs[use.place].name
    return f"{weight}.{use.node.outputs[0].name}.bias"
