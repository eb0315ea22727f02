"""A copy of a model that gives out other tensors: what a calibration run looks at."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx

from onnxcomp.graph.copying import copy_tensors_too
from onnxcomp.graph.model import Node, Variable, bodies_of
from onnxcomp.graph.order import read_by
from onnxcomp.graph.overriding import feed
from onnxcomp.graph.values import Constant

if TYPE_CHECKING:
    from collections.abc import Mapping

    import onnx_graphsurgeon as gs

    from onnxcomp.graph.model import Graph, Model, Tensor

EXPOSED = "onnxcomp.exposed."
"""Starts the name of an output that carries a tensor out of a branch."""

FLOAT = int(onnx.TensorProto.FLOAT)


def why_hidden(model: Model, scope: Graph) -> str | None:
    """Return why tensors of a scope cannot be given out; None if they can."""
    if all(scope is not each for each in model.scopes()):
        return "is inside a local function"
    owners = _owners(model)
    while id(scope) in owners:
        scope, node = owners[id(scope)]
        if node.op != "If":
            return f"is inside a {node.op} body"
    return None


def expose(
    model: Model,
    tensors: Mapping[str, tuple[Tensor, Graph]],
    how: str = "Identity",
    given: Mapping[str, tuple[Tensor, np.dtype[Any], int]] = MappingProxyType({}),
) -> Model:
    """Return a copy of a model whose outputs are some of its tensors, and nothing else.

    Nodes that none of them needs are left out, and where tensors are given, inputs too. A tensor
    of an If branch is carried out through its If, whose other branch gives an empty tensor there;
    so does the branch itself in a run that takes the other one. It comes as float32 where the
    model does not declare its type.

    Args:
        model: The model; not changed, and its weights are shared.
        tensors: By the name of the output: a tensor of the model, and the scope that computes it.
        how: The operator that each goes through; ``Shape`` gives out shapes only.
        given: Tensors of the main graph that are fed and not computed, with element type and
            rank, by the names of the new inputs.
    """
    copied, twins = copy_tensors_too(model)
    for name, (tensor, kind, rank) in given.items():
        twins[id(tensor)] = feed(copied, twins[id(tensor)], Variable(name, kind, [None] * rank))
    owners = _owners(copied)
    scopes = dict(zip(map(id, model.scopes()), copied.scopes(), strict=True))
    outputs = []
    for name, (tensor, scope) in tensors.items():
        found = twins[id(tensor)]
        home = scopes[id(scope)]
        while id(home) in owners:
            parent, node = owners[id(home)]
            found = _carry(found, home, node)
            home = parent
        dtype = found.dtype if how == "Identity" else None
        node = Node(how, name, {}, [found], [Variable(name, dtype)])
        copied.nodes.append(node)
        outputs.append(node.outputs[0])
    copied.outputs = outputs
    needed = _needed(copied)
    copied.nodes = [node for node in copied.nodes if id(node) in needed]
    if given:
        read = {id(each) for node in copied.nodes for each in read_by(node)}
        copied.inputs = [each for each in copied.inputs if id(each) in read]
    return copied


def isolate(model: Model, node: gs.Node, read: Tensor, fed: Variable, given: Variable) -> Model:
    """Return a model of one operator, which takes an input and gives its first output.

    Args:
        model: The model that it is part of, in whatever body; not changed, and weights are shared.
        node: The operator.
        read: What it reads that is to be fed.
        fed: The new input in the place of that.
        given: The new output.
    """
    copied, twins = copy_tensors_too(model)
    (alone,) = twins[id(node.outputs[0])].inputs
    old = twins[id(read)]
    alone.inputs = [fed if each is old else each for each in alone.inputs]
    alone.outputs = [given, *alone.outputs[1:]]
    copied.nodes = [alone]
    computed = {id(each): each for each in alone.inputs if not isinstance(each, Constant)}
    copied.inputs = [each for each in computed.values() if each.name]
    copied.outputs = [given]
    return copied


def _owners(model: Model) -> dict[int, tuple[Graph, gs.Node]]:
    """Return the scope and the node that a body belongs to, by the body's identity."""
    return {
        id(body): (scope, node)
        for scope in model.scopes()
        for node in scope.nodes
        for body in bodies_of(node)
    }


def _carry(tensor: Tensor, home: Graph, branching: gs.Node) -> Variable:
    """Give a tensor of one branch out of its If."""
    name = f"{EXPOSED}{len(branching.outputs)}.{branching.outputs[0].name}"
    dtype = np.dtype(np.float32) if tensor.dtype is None else np.dtype(tensor.dtype)
    # A type that no declaration tells may be float16 too, and both branches must give the same.
    how, attributes = ("Cast", {"to": FLOAT}) if tensor.dtype is None else ("Identity", {})
    for place, body in enumerate(bodies_of(branching)):
        given = tensor if body is home else Constant(f"{name}.empty", np.empty(0, dtype))
        passed = Variable(f"{name}.{place}", dtype)
        body.nodes.append(Node(how, passed.name, dict(attributes), [given], [passed]))
        body.outputs = [*body.outputs, passed]
    carried = Variable(name, dtype)
    branching.outputs = [*branching.outputs, carried]
    return carried


def _needed(model: Model) -> set[int]:
    """Return the identities of the main graph's nodes that its outputs depend on."""
    needed: set[int] = set()
    waiting = [node for tensor in model.outputs for node in tensor.inputs]
    while waiting:
        node = waiting.pop()
        if id(node) in needed:
            continue
        needed.add(id(node))
        waiting.extend(each for tensor in read_by(node) for each in tensor.inputs)
    return needed
