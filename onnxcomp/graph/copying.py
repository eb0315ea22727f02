"""Copies of a model that share its weights."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import onnx
import onnx_graphsurgeon as gs

from onnxcomp.graph.model import Graph, Model, Node, Tensor, Variable
from onnxcomp.graph.values import Constant

if TYPE_CHECKING:
    from collections.abc import Iterable


def copy_model(model: Model) -> Model:
    """Copy a model, so that a pass may rewrite the copy; weights and messages are shared."""
    return copy_tensors_too(model)[0]


def copy_tensors_too(model: Model) -> tuple[Model, dict[int, Tensor]]:
    """Copy a model, and return what became of each tensor, by the identity of the old one."""
    copies: dict[int, Tensor] = {}
    copied: Model = _copy_graph(model, copies, Model)
    copied.header = onnx.ModelProto()
    copied.header.CopyFrom(model.header)
    copied.import_domains = copied.header.opset_import
    copied.data_paths = model.data_paths
    copied.folder = model.folder
    copied.local_functions = [
        _copy_graph(function, copies, Graph) for function in model.local_functions
    ]
    return copied, copies


def _copy_graph(graph: gs.Graph, copies: dict[int, Tensor], kind: type[Any]) -> Any:
    constants = graph.__dict__.get("constants", [])
    _copy_tensors([*constants, *graph.inputs, *graph.outputs], copies)
    nodes = [_copy_node(node, copies) for node in graph.nodes]
    copied = kind(
        nodes,
        [copies[id(tensor)] for tensor in graph.inputs],
        [copies[id(tensor)] for tensor in graph.outputs],
        name=graph.name,
        doc_string=graph.doc_string,
        opset=graph.opset,
        ir_version=graph.ir_version,
    )
    copied.source = graph.__dict__.get("source", onnx.GraphProto())
    copied.constants = [copies[id(constant)] for constant in constants]
    copied.unread = graph.__dict__.get("unread", frozenset())
    copied.dangling = graph.__dict__.get("dangling", frozenset())
    twins = {id(old): new for old, new in zip(graph.nodes, nodes, strict=True)}
    for constant, twin in zip(constants, copied.constants, strict=True):
        twin.follower = twins.get(id(constant.follower))
    return copied


def _copy_node(node: gs.Node, copies: dict[int, Tensor]) -> Node:
    _copy_tensors([*node.inputs, *node.outputs], copies)
    attributes = {
        name: _copy_graph(value, copies, Graph) if isinstance(value, gs.Graph) else value
        for name, value in node.attrs.items()
    }
    copied = Node(
        node.op,
        node.name,
        attributes,
        [copies[id(tensor)] for tensor in node.inputs],
        [copies[id(tensor)] for tensor in node.outputs],
        node.domain,
    )
    copied.source = getattr(node, "source", None)
    return copied


def _copy_tensors(tensors: Iterable[Tensor], copies: dict[int, Tensor]) -> None:
    for tensor in tensors:
        if id(tensor) not in copies:
            copies[id(tensor)] = _copy_tensor(tensor)


def _copy_tensor(tensor: Tensor) -> Tensor:
    if isinstance(tensor, Constant):
        return tensor.copy()
    if isinstance(tensor, gs.Constant):
        return Constant(tensor.name, tensor._values)  # noqa: SLF001 - its values, not loaded
    assert isinstance(tensor, gs.Variable)  # noqa: S101 - there are no others
    copied = Variable(tensor.name, tensor.dtype, tensor.shape, tensor.type)
    copied.source = getattr(tensor, "source", None)
    return copied
