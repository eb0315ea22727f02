"""From protobuf messages to a graph that passes can rewrite."""

from __future__ import annotations

from collections import ChainMap
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import onnx

from onnxcomp.graph.attributes import read_attribute
from onnxcomp.graph.declarations import FIRST_IR_WITHOUT_LISTED_INITIALIZERS, declared
from onnxcomp.graph.lifting import lift_stores
from onnxcomp.graph.messages import copy_without
from onnxcomp.graph.model import Graph, Model, Node, Tensor, Variable
from onnxcomp.graph.order import ordered
from onnxcomp.graph.values import Constant, SparseTensorValues, TensorValues

if TYPE_CHECKING:
    from collections.abc import Iterable, MutableMapping

    from onnxcomp.graph.external import DataFiles

Scope = ChainMap[str, Tensor]
GraphKind = TypeVar("GraphKind", bound=Graph)

NUMBERS = {"value_float", "value_floats", "value_int", "value_ints"}
"""Attributes of a Constant node, besides ``value``, that hold a tensor of numbers."""


def read_model(proto: onnx.ModelProto, files: DataFiles) -> Model:
    """Read a model; the messages in ``proto`` are kept and never changed.

    Weights stay where they are until a pass loads them. Decodings that an exporter of ours wrote
    become constants again.

    Raises:
        ModelError: External data is missing, too short or outside the model's folder, or nodes
            form a cycle, in which whoever follows tensors would never end.
    """
    model = _read_graph(proto.graph, ChainMap(), files, Model)
    model.header = copy_without(proto, {"graph", "functions"})
    model.local_functions = [_read_function(function, files) for function in proto.functions]
    model.opset = opset_of(proto.opset_import)
    model.ir_version = proto.ir_version
    model.import_domains = model.header.opset_import
    model.data_paths = files.paths
    model.folder = files.folder
    if proto.ir_version >= FIRST_IR_WITHOUT_LISTED_INITIALIZERS:
        fed = {info.name for info in proto.graph.input}
        for constant in model.constants:
            constant.may_be_overridden = constant.name in fed
    for graph in model.all_scopes():
        ordered(graph.nodes)
    lift_stores(model)
    return model


def opset_of(imports: Iterable[onnx.OperatorSetIdProto]) -> int:
    """Version of the standard operators; 1 where a model imports none."""
    return next((each.version for each in imports if each.domain in {"", "ai.onnx"}), 1)


def _read_graph(
    proto: onnx.GraphProto, outer: Scope, files: DataFiles, kind: type[GraphKind]
) -> GraphKind:
    scope = outer.new_child()
    infos = {info.name: info for info in (*proto.value_info, *proto.output, *proto.input)}
    constants = [Constant(each.name, TensorValues(each, files)) for each in proto.initializer]
    constants += [
        Constant(each.values.name, SparseTensorValues(each)) for each in proto.sparse_initializer
    ]
    scope.maps[0].update((each.name, each) for each in constants)
    inputs = [
        _output(info.name, scope, infos) for info in proto.input if info.name not in scope.maps[0]
    ]
    nodes = _read_nodes(proto.node, scope, infos, constants, files)
    outputs = [_variable(info.name, scope, infos) for info in proto.output]
    graph = kind(nodes, inputs, outputs, name=proto.name, doc_string=proto.doc_string)
    graph.source = copy_without(proto, {"node", "initializer", "sparse_initializer"})
    graph.constants = constants
    graph.unread = frozenset(each.name for each in constants if not each.outputs)
    graph.dangling = frozenset(infos) - frozenset(scope.maps[0])
    return graph


def _read_function(proto: onnx.FunctionProto, files: DataFiles) -> Graph:
    scope: Scope = ChainMap()
    infos = {info.name: info for info in proto.value_info}
    constants: list[Constant] = []
    inputs = [_variable(name, scope, infos) for name in proto.input]
    nodes = _read_nodes(proto.node, scope, infos, constants, files)
    outputs = [_variable(name, scope, infos) for name in proto.output]
    graph = Graph(nodes, inputs, outputs, name=proto.name, opset=opset_of(proto.opset_import))
    graph.source = copy_without(proto, {"node"})
    graph.constants = constants
    graph.unread = frozenset(each.name for each in constants if not each.outputs)
    graph.dangling = frozenset()
    return graph


def _read_nodes(
    protos: Iterable[onnx.NodeProto],
    scope: Scope,
    infos: MutableMapping[str, onnx.ValueInfoProto],
    constants: list[Constant],
    files: DataFiles,
) -> list[Node]:
    nodes: list[Node] = []
    leading: list[Constant] = []
    for proto in protos:
        values = _constant_values(proto, files)
        if values is not None:
            constant = Constant(proto.output[0], values)
            constant.node, constant.node_values = proto, values
            scope.maps[0][constant.name] = constant
            constants.append(constant)
            leading.append(constant)
            continue
        node = _read_node(proto, scope, infos, files)
        for constant in leading:
            constant.follower = node
        leading = []
        nodes.append(node)
    return nodes


def _constant_values(proto: onnx.NodeProto, files: DataFiles) -> TensorValues | None:
    """Return what a Constant node holds, or None for any other node."""
    if proto.op_type != "Constant" or proto.domain not in {"", "ai.onnx"}:
        return None
    if not len(proto.attribute) == len(proto.output) == 1 or proto.attribute[0].ref_attr_name:
        return None
    attribute = proto.attribute[0]
    if attribute.name == "value":
        return TensorValues(attribute.t, files)
    if attribute.name not in NUMBERS:
        return None
    kind = np.float32 if "float" in attribute.name else np.int64
    array = np.array(read_attribute(attribute), kind)
    return TensorValues(onnx.numpy_helper.from_array(array, proto.output[0]), files)


def _read_node(
    proto: onnx.NodeProto,
    scope: Scope,
    infos: MutableMapping[str, onnx.ValueInfoProto],
    files: DataFiles,
) -> Node:
    attributes: dict[str, Any] = {}
    for attribute in proto.attribute:
        if attribute.type == onnx.AttributeProto.GRAPH and not attribute.ref_attr_name:
            value: Any = _read_graph(attribute.g, scope, files, Graph)
        elif attribute.type == onnx.AttributeProto.TENSOR and not attribute.ref_attr_name:
            value = Constant(attribute.t.name, TensorValues(attribute.t, files))
        else:
            value = read_attribute(attribute)
        attributes[attribute.name] = value
    node = Node(
        proto.op_type,
        proto.name,
        attributes,
        [_variable(name, scope, infos) for name in proto.input],
        [_output(name, scope, infos) for name in proto.output],
        proto.domain if proto.HasField("domain") else None,
    )
    node.source = proto
    return node


def _variable(name: str, scope: Scope, infos: MutableMapping[str, onnx.ValueInfoProto]) -> Tensor:
    """Return the tensor of a name, from this scope or an outer one."""
    if not name:
        return Variable("")
    if name not in scope:
        variable = Variable(name)
        if name in infos:
            variable.source = infos[name]
            variable.dtype, variable.shape = declared(infos[name])
        scope.maps[0][name] = variable
    return scope[name]


def _output(name: str, scope: Scope, infos: MutableMapping[str, onnx.ValueInfoProto]) -> Tensor:
    """Return the tensor that a node of this scope computes, whatever outer scopes call so."""
    return _variable(name, ChainMap(scope.maps[0]), infos)
