"""From a graph back to protobuf messages, with the stores written out as operators."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx_graphsurgeon.ir.tensor import LazyValues

from onnxcomp.graph.attributes import write_attribute
from onnxcomp.graph.census import Census, check_names
from onnxcomp.graph.declarations import (
    FIRST_IR_WITHOUT_LISTED_INITIALIZERS,
    declare,
    declare_initializers,
    declare_inputs,
    hide_initializers,
)
from onnxcomp.graph.lowering import Decoder, LeafPool, Names
from onnxcomp.graph.messages import copy_without
from onnxcomp.graph.scopes import WrittenScope, store_in
from onnxcomp.graph.values import (
    Constant,
    SparseTensorValues,
    StoredValues,
    TensorValues,
    bytes_of,
    flat_bytes,
    packed_bytes,
)
from onnxcomp.stores.expression import framed_bytes

if TYPE_CHECKING:
    from collections.abc import Callable

    import onnx_graphsurgeon as gs
    from numpy.typing import NDArray

    from onnxcomp.graph.model import Graph, Model

    Load = Callable[[], NDArray[np.uint8]]
    Offload = Callable[[onnx.TensorProto, int, Load], None]

SMALLEST_EXTERNAL = 1024
"""Fewer bytes stay in the message: ONNX's own threshold."""


def write_model(
    model: Model, *, offload: Offload | None = None, refer: bool = False
) -> onnx.ModelProto:
    """Write a model.

    Args:
        model: The model; not changed.
        offload: Takes a tensor without data, how many bytes it has and what loads them, puts the
            bytes elsewhere and says in the tensor where. Without it all data goes into the
            message.
        refer: Leave external data where it is; the message says where.
    """
    return _Writer(model, offload, refer=refer).write()


def count_bytes(model: Model) -> int:
    """Bytes of the model as files, data file included, without keeping any of them."""
    counted = 0

    def count(header: onnx.TensorProto, size: int, _load: Load) -> None:
        nonlocal counted
        bare = header.ByteSize()
        counted += framed_bytes(bare + framed_bytes(size)) - framed_bytes(bare)

    proto = write_model(model, offload=count)
    size, graph = proto.ByteSize(), proto.graph.ByteSize()
    return int(size + framed_bytes(graph + counted) - framed_bytes(graph))


class _Writer:
    def __init__(self, model: Model, offload: Offload | None, *, refer: bool) -> None:
        self._model = model
        self._offload = offload
        self._refer = refer
        self._census = Census(model)
        self._names = Names(self._census.names)
        self._ir_version = 0

    def write(self) -> onnx.ModelProto:
        proto = onnx.ModelProto()
        proto.CopyFrom(self._model.header)
        for each in proto.opset_import:
            if each.domain in {"", "ai.onnx"}:
                each.version = self._model.opset
        pool = LeafPool(self._names)
        self._graph(self._model, proto.graph, pool, pool)
        for function in self._model.local_functions:
            self._function(function, proto.functions.add())
        proto.ir_version = max(proto.ir_version, self._ir_version)
        if proto.ir_version < FIRST_IR_WITHOUT_LISTED_INITIALIZERS:
            declare_initializers(proto.graph)
        elif self._model.header.ir_version < FIRST_IR_WITHOUT_LISTED_INITIALIZERS:
            hide_initializers(proto.graph)
        return proto

    def _graph(
        self, graph: gs.Graph, proto: onnx.GraphProto, shared: LeafPool, own: LeafPool
    ) -> None:
        source = graph.__dict__.get("source", onnx.GraphProto())
        proto.CopyFrom(copy_without(source, {"input", "output", "value_info"}))
        proto.name = graph.name
        constants = self._census.constants(graph)
        check_names(graph, constants)
        dangling = graph.__dict__.get("dangling", ())
        scope = WrittenScope(graph, constants, self._census)
        proto.node.extend(self._nodes(scope, shared, own))
        for constant in scope.initializers:
            held = constant._values  # noqa: SLF001 - GraphSurgeon's constants have no other way
            if isinstance(held, SparseTensorValues):
                proto.sparse_initializer.append(held.tensor)
            else:
                proto.initializer.append(self._tensor(constant))
        self._ir_version = max(self._ir_version, own.ir_version)
        for name, leaf in own.leaves:
            header = onnx.TensorProto(name=name, data_type=leaf.data_type, dims=leaf.shape)
            load = partial(flat_bytes, leaf.data)
            proto.initializer.append(self._placed(header, leaf.data.nbytes, load))
        written = {each.name: tuple(each.dims) for each in proto.initializer}
        proto.input.extend(declare_inputs(graph.inputs, source.input, written))
        proto.output.extend(declare(each) for each in graph.outputs)
        known = {each.name: each for node in graph.nodes for each in node.outputs}
        for info in source.value_info:
            if info.name in known:
                proto.value_info.append(declare(known[info.name]))
            elif info.name in dangling or info.name in scope.plain_names:
                proto.value_info.append(info)

    def _function(self, function: Graph, proto: onnx.FunctionProto) -> None:
        proto.CopyFrom(function.source)
        pool = LeafPool(self._names)
        constants = self._census.constants(function)
        check_names(function, constants)
        scope = WrittenScope(function, constants, self._census)
        nodes = self._nodes(scope, pool, pool)
        self._ir_version = max(self._ir_version, pool.ir_version)
        tensors = {each.name: self._inline(each) for each in scope.initializers}
        tensors |= {name: leaf.to_proto(name) for name, leaf in pool.leaves}
        proto.node.extend(
            onnx.helper.make_node("Constant", [], [name], value=tensor)
            for name, tensor in tensors.items()
        )
        proto.node.extend(nodes)

    def _nodes(self, scope: WrittenScope, shared: LeafPool, own: LeafPool) -> list[onnx.NodeProto]:
        decoder = Decoder(self._names, shared, own)
        protos: list[onnx.NodeProto] = []
        for constant in scope.decoded:
            protos += decoder.weight(store_in(constant), constant.name)
        protos += [self._constant_node(constant) for constant in scope.leading]
        for node in scope.nodes:
            protos += [self._constant_node(each) for each in scope.followed_by.get(id(node), ())]
            proto = self._node(node, shared)
            table = next(iter(node.inputs), None)
            if isinstance(table, Constant) and id(table) in scope.by_rows:
                protos += decoder.rows(store_in(table), proto, scope.by_rows[id(table)])
            else:
                protos.append(proto)
        protos += [self._constant_node(constant) for constant in scope.trailing]
        return protos

    def _node(self, node: gs.Node, shared: LeafPool) -> onnx.NodeProto:
        source = getattr(node, "source", None) or onnx.NodeProto()
        proto = copy_without(source, {"attribute", "input", "output"})
        proto.op_type = node.op
        if node.name != proto.name:
            proto.name = node.name
        if node.domain is not None:
            proto.domain = node.domain
        proto.input.extend(each.name for each in node.inputs)
        proto.output.extend(each.name for each in node.outputs)
        sources = {each.name: each for each in source.attribute}

        def write_graph(body: gs.Graph) -> onnx.GraphProto:
            written = onnx.GraphProto()
            self._graph(body, written, shared, LeafPool(self._names))
            return written

        proto.attribute.extend(
            write_attribute(name, value, sources.get(name), write_graph, self._inline)
            for name, value in node.attrs.items()
        )
        return proto

    def _constant_node(self, constant: Constant) -> onnx.NodeProto:
        values: Any = constant.held
        proto = onnx.NodeProto()
        proto.MergeFrom(constant.node or proto)
        if values.external is not None:
            proto.attribute[0].t.CopyFrom(self._inline(constant))
        proto.output[0] = constant.name
        return proto

    def _inline(self, constant: gs.Constant) -> onnx.TensorProto:
        """Write a tensor into a node, where its data cannot lie elsewhere."""
        held: Any = constant._values  # noqa: SLF001
        if isinstance(held, TensorValues) and held.external is not None:
            proto: onnx.TensorProto = copy_without(held.tensor, {"external_data", "data_location"})
            proto.raw_data = held.external.tobytes()
            return proto
        if isinstance(held, TensorValues):
            return held.tensor
        return onnx.numpy_helper.from_array(np.asarray(constant.values), constant.name)

    def _tensor(self, constant: gs.Constant) -> onnx.TensorProto:
        held = constant._values  # noqa: SLF001
        if isinstance(held, TensorValues) and self._is_moved(held):
            header = copy_without(held.tensor, {"external_data", "data_location", "raw_data"})
            header.name = constant.name
            return self._placed(header, held.nbytes, held.packed)
        if isinstance(held, LazyValues) and not isinstance(held, StoredValues):
            proto = onnx.TensorProto()
            proto.CopyFrom(held.tensor)
            proto.name = constant.name
            return proto
        if constant.dtype == np.dtype(object):
            return onnx.numpy_helper.from_array(np.asarray(constant.values), constant.name)
        data_type = onnx.helper.np_dtype_to_tensor_dtype(np.dtype(constant.dtype))
        shape = tuple(constant.shape)
        header = onnx.TensorProto(name=constant.name, data_type=data_type, dims=shape)
        return self._placed(header, packed_bytes(data_type, shape), partial(bytes_of, constant))

    def _is_moved(self, held: TensorValues) -> bool:
        """Tell whether a tensor's data goes elsewhere than it lies, or is not to be copied."""
        if held.external is not None:
            return not self._refer
        return self._offload is not None and held.tensor.HasField("raw_data")

    def _placed(self, header: onnx.TensorProto, size: int, load: Load) -> onnx.TensorProto:
        if self._offload is not None and size >= SMALLEST_EXTERNAL:
            self._offload(header, size, load)
        else:
            header.raw_data = load().tobytes()
        return header
