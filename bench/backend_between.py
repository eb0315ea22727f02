"""The models of ONNX's backend data with something to remove: between layers, or with weights."""

from __future__ import annotations

from dataclasses import replace
from math import prod
from string import ascii_lowercase
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from onnxcomp import OnnxcompError
from onnxcomp.runtime import open_session

if TYPE_CHECKING:
    from backend_models import Case

FIRST_EINSUM = 12
MOST_ELEMENTS = 1 << 16


def between_layers(case: Case) -> Case | None:
    """Mix every axis of a model's float inputs before it, and of its outputs after it.

    Other inputs become initializers. None where the model does not run, is of an early opset, or
    has tensors of another type than float.
    """
    opset = next((each.version for each in case.proto.opset_import if not each.domain), 0)
    if opset < FIRST_EINSUM or not all(isinstance(x, np.ndarray) for x in case.feed.values()):
        return None
    mixed = [name for name, value in case.feed.items() if _is_mixed(value)]
    try:
        given = open_session(case.proto.SerializeToString(), threads=1).run(case.feed)
    except OnnxcompError:
        return None
    if not mixed or not all(value.dtype.kind in "fiub" for value in given.values()):
        return None
    proto = onnx.ModelProto()
    proto.CopyFrom(case.proto)
    numbers = np.random.default_rng(len(case.name))
    layers = _Layers(proto.graph, numbers)
    before = [layers.before(name, case.feed[name]) for name in mixed]
    for name, value in case.feed.items():
        if name not in mixed:
            proto.graph.initializer.append(numpy_helper.from_array(value, name))
    after = [layers.after(name, value) for name, value in given.items()]
    nodes = [*layers.first, *proto.graph.node, *layers.last]
    for field, kept in (("node", nodes), ("input", before), ("output", after)):
        proto.graph.ClearField(field)
        getattr(proto.graph, field).extend(kept)
    proto.graph.ClearField("value_info")
    feed = {f"in.{name}": case.feed[name] for name in mixed}
    return replace(case, proto=proto, feed=feed)


def _is_mixed(value: Any) -> bool:
    return value.dtype == np.float32 and value.ndim > 0 and 0 < value.size < MOST_ELEMENTS


class _Layers:
    """Layers that are put around a graph."""

    def __init__(self, graph: onnx.GraphProto, numbers: np.random.Generator) -> None:
        self.graph = graph
        self.numbers = numbers
        self.first: list[onnx.NodeProto] = []
        self.last: list[onnx.NodeProto] = []

    def before(self, name: str, value: np.ndarray) -> onnx.ValueInfoProto:
        """Mix what is fed before it becomes the input of a name."""
        self.first += self._mix(f"in.{name}", name, value.shape)
        return helper.make_tensor_value_info(f"in.{name}", onnx.TensorProto.FLOAT, value.shape)

    def after(self, name: str, value: np.ndarray) -> onnx.ValueInfoProto:
        """Mix what has been given, as floats."""
        self.last.append(helper.make_node("Cast", [name], [f"float.{name}"], to=1))
        self.last += self._mix(f"float.{name}", f"out.{name}", value.shape)
        return helper.make_tensor_value_info(f"out.{name}", onnx.TensorProto.FLOAT, value.shape)

    def _mix(self, name: str, result: str, shape: tuple[int, ...]) -> list[onnx.NodeProto]:
        nodes = []
        letters = ascii_lowercase[: len(shape)]
        for axis, size in enumerate(shape):
            weight, mixed = f"{result}.weight{axis}", f"{result}.mixed{axis}"
            values = np.eye(size) + 0.3 * self.numbers.standard_normal((size, size))
            self.graph.initializer.append(
                numpy_helper.from_array(values.astype(np.float32), weight)
            )
            terms = f"{letters},{letters[axis]}z", letters.replace(letters[axis], "z")
            nodes.append(
                helper.make_node("Einsum", [name, weight], [mixed], equation="->".join(terms))
            )
            name = mixed
        return [*nodes, helper.make_node("Identity", [name], [result])]


def with_weights(case: Case) -> Case | None:
    """Let weights that a model makes of their shapes be numbers; None where it makes none."""
    shapes = {each.name: numpy_helper.to_array(each) for each in case.proto.graph.initializer}
    made = [
        node
        for node in case.proto.graph.node
        if node.op_type == "ConstantOfShape" and node.input[0] in shapes
    ]
    if not made:
        return None
    proto = onnx.ModelProto()
    proto.CopyFrom(case.proto)
    proto.graph.ClearField("node")
    proto.graph.node.extend(each for each in case.proto.graph.node if each not in made)
    numbers = np.random.default_rng(0)
    for node in made:
        shape = shapes[node.input[0]].tolist()
        if len(shape) > 1:
            values = (
                numbers.standard_normal(shape, np.float32) / np.float32(prod(shape[1:])) ** 0.5
            )
        else:
            values = numbers.uniform(0.5, 1.5, shape).astype(np.float32)
        proto.graph.initializer.append(numpy_helper.from_array(values, node.output[0]))
        if proto.ir_version < 4:
            kind = onnx.TensorProto.FLOAT
            proto.graph.input.append(helper.make_tensor_value_info(node.output[0], kind, shape))
    return replace(case, proto=proto)
