"""Attributes of nodes: what a message holds as Python values, and back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnx_graphsurgeon as gs
from onnx_graphsurgeon.util.misc import convert_from_onnx_attr_type, convert_to_onnx_attr_type

from onnxcomp.graph.messages import copy_without

if TYPE_CHECKING:
    from collections.abc import Callable

FIELDS = {
    onnx.AttributeProto.FLOAT: "f",
    onnx.AttributeProto.INT: "i",
    onnx.AttributeProto.STRING: "s",
    onnx.AttributeProto.FLOATS: "floats",
    onnx.AttributeProto.INTS: "ints",
    onnx.AttributeProto.STRINGS: "strings",
}


def read_attribute(attribute: onnx.AttributeProto) -> Any:
    """Return what an attribute holds; graphs and tensors are the caller's.

    A reference to a function's attribute is a `gs.Node.AttributeRef`; a kind that has no Python
    type is the message itself.
    """
    if attribute.ref_attr_name:
        kind = convert_from_onnx_attr_type(attribute.type)
        return gs.Node.AttributeRef(attribute.ref_attr_name, kind)
    if attribute.type not in FIELDS:
        return attribute
    value = getattr(attribute, FIELDS[attribute.type])
    if attribute.type == onnx.AttributeProto.STRING:
        return text_of(value)
    if attribute.type == onnx.AttributeProto.STRINGS:
        return [text_of(each) for each in value]
    return value if isinstance(value, int | float) else list(value)


def text_of(value: bytes) -> str | bytes:
    """Return a string as text, or as it is where it is not UTF-8."""
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value


def write_attribute(
    name: str,
    value: Any,
    source: onnx.AttributeProto | None,
    write_graph: Callable[[gs.Graph], onnx.GraphProto],
    write_tensor: Callable[[gs.Constant], onnx.TensorProto],
) -> onnx.AttributeProto:
    """Return the message for an attribute; what did not change is copied from ``source``."""
    if isinstance(value, gs.Graph):
        proto = _like(source, name, onnx.AttributeProto.GRAPH, "g")
        proto.g.CopyFrom(write_graph(value))
        return proto
    if isinstance(value, gs.Constant):
        proto = _like(source, name, onnx.AttributeProto.TENSOR, "t")
        proto.t.CopyFrom(write_tensor(value))
        return proto
    if isinstance(value, onnx.AttributeProto):
        return value
    if source is not None and _same(read_attribute(source), value):
        return source
    if isinstance(value, gs.Node.AttributeRef):
        kind = convert_to_onnx_attr_type(value.type)
        return onnx.AttributeProto(name=name, type=kind, ref_attr_name=value.name)
    if isinstance(value, np.ndarray):
        value = value.tolist()
    given = source.type if source is not None and value == [] else None
    return onnx.helper.make_attribute(name, value, attr_type=given)


def _like(
    source: onnx.AttributeProto | None, name: str, kind: Any, field: str
) -> onnx.AttributeProto:
    if source is None:
        return onnx.AttributeProto(name=name, type=kind)
    return copy_without(source, {field})


def _same(one: Any, other: Any) -> bool:
    return type(one) is type(other) and bool(one == other or repr(one) == repr(other))
