"""Decoding as a value: a small tree of standard operators over stored arrays.

A store describes how its weight is decoded as a tree of `Operation` and `Leaf`. The exporter
writes the tree into a graph, the importer reads it back, and its bytes are counted from it, all
without knowing what the tree computes. An `Operation` that occurs twice in a tree is one node.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING

import ml_dtypes
import numpy as np
import onnx

from onnxcomp.stores.packing import pack

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

MARK = "onnxcomp"
"""The key in a node's metadata under which a decoding's last node names its store."""

TYPICAL_NAME = "onnxcomp.1234"

PACKED_BASES = {
    np.dtype(kind): base
    for base, kinds in {
        16: (ml_dtypes.int4, ml_dtypes.uint4),
        4: (ml_dtypes.int2, ml_dtypes.uint2),
    }.items()
    for kind in kinds
}
"""How many values the element types below eight bits have."""


@dataclass(frozen=True, eq=False)
class Leaf:
    """A stored array: what an initializer of a decoding holds.

    Args:
        data: The bytes, contiguous; packed where the element type is below eight bits.
        data_type: An element type of `onnx.TensorProto`.
        shape: The tensor's shape, in elements.
        shared: Whether many tensors use the same array, so that the model keeps one.
    """

    data: NDArray[np.generic]
    data_type: int
    shape: tuple[int, ...]
    shared: bool = False

    @staticmethod
    def of(array: NDArray[np.generic], *, shared: bool = False) -> Leaf:
        """Wrap an array; elements below eight bits are packed."""
        data_type = onnx.helper.np_dtype_to_tensor_dtype(array.dtype)
        if array.dtype in PACKED_BASES:
            base = PACKED_BASES[array.dtype]
            digits = array.reshape(-1).view(np.uint8) % np.uint8(base)
            return Leaf(pack(digits, base), data_type, tuple(array.shape), shared)
        # np.ascontiguousarray would turn a 0-d array into a 1-d one.
        contiguous = array if array.flags.c_contiguous else array.copy(order="C")
        return Leaf(contiguous, data_type, tuple(array.shape), shared)

    @property
    def array(self) -> NDArray[np.generic]:
        """The elements; unpacked into another array only where they are below eight bits."""
        dtype = np.dtype(onnx.helper.tensor_dtype_to_np_dtype(self.data_type))
        stored = self.data.reshape(-1).view(np.uint8)
        if dtype in PACKED_BASES or len(stored) != prod(self.shape) * dtype.itemsize:
            return onnx.numpy_helper.to_array(self.to_proto(""))
        return stored.view(dtype).reshape(self.shape)

    def to_proto(self, name: str) -> onnx.TensorProto:
        """The tensor as an initializer."""
        return onnx.TensorProto(
            name=name, data_type=self.data_type, dims=self.shape, raw_data=self.data.tobytes()
        )

    def equals(self, other: Leaf) -> bool:
        """Whether both hold the same bytes of the same type and shape."""
        kinds = (self.data_type, self.shape) == (other.data_type, other.shape)
        return kinds and np.array_equal(
            self.data.reshape(-1).view(np.uint8), other.data.reshape(-1).view(np.uint8)
        )


@dataclass(frozen=True, eq=False)
class Indices:
    """The place of a Gather's indices in a decoding that decodes only the gathered rows."""


@dataclass(frozen=True, eq=False)
class Operation:
    """One standard operator with one output."""

    op_type: str
    inputs: tuple[Expression, ...]
    attributes: tuple[tuple[str, int | tuple[int, ...]], ...] = ()

    def to_proto(self, inputs: Sequence[str], output: str) -> onnx.NodeProto:
        """The operator as a node."""
        node = onnx.helper.make_node(self.op_type, inputs, [output])
        node.attribute.extend(
            onnx.helper.make_attribute(name, value) for name, value in self.attributes
        )
        return node


Expression = Leaf | Operation | Indices


def equal(one: Expression, other: Expression) -> bool:
    """Whether two trees have the same operators, attributes and stored bytes."""
    if isinstance(one, Leaf) and isinstance(other, Leaf):
        return one.equals(other)
    if isinstance(one, Operation) and isinstance(other, Operation):
        return (
            (one.op_type, one.attributes) == (other.op_type, other.attributes)
            and len(one.inputs) == len(other.inputs)
            and all(equal(a, b) for a, b in zip(one.inputs, other.inputs, strict=True))
        )
    return isinstance(one, Indices) and isinstance(other, Indices)


def is_shared(expression: Expression) -> bool:
    """Whether a tree is the same for many tensors, so that a scope keeps it once."""
    if isinstance(expression, Operation):
        return all(is_shared(each) for each in expression.inputs)
    return isinstance(expression, Leaf) and expression.shared


def shared_bytes(expression: Expression) -> dict[tuple[object, ...], int]:
    """How many bytes each shared part of the tree adds to a file that does not have it yet.

    Returns:
        Bytes by content, so that the parts of several trees can be compared.
    """
    if is_shared(expression):
        return {_content(expression): _bytes(expression)}
    parts: dict[tuple[object, ...], int] = {}
    if isinstance(expression, Operation):
        for each in expression.inputs:
            parts |= shared_bytes(each)
    return parts


def _content(expression: Expression) -> tuple[object, ...]:
    if isinstance(expression, Operation):
        below = (_content(each) for each in expression.inputs)
        return (expression.op_type, expression.attributes, *below)
    if isinstance(expression, Leaf):
        return (expression.data_type, expression.shape, expression.data.tobytes())
    return ()


def count_bytes(expression: Expression) -> int:
    """How many bytes the tree adds to a file, without `shared_bytes`."""
    counted: dict[int, int] = {}

    def count(each: Expression) -> None:
        if id(each) in counted or is_shared(each):
            return
        counted[id(each)] = _own_bytes(each)
        if isinstance(each, Operation):
            for below in each.inputs:
                count(below)

    count(expression)
    return sum(counted.values())


def _bytes(expression: Expression) -> int:
    below = expression.inputs if isinstance(expression, Operation) else ()
    return _own_bytes(expression) + sum(_bytes(each) for each in below)


def _own_bytes(expression: Expression) -> int:
    if isinstance(expression, Leaf):
        header = onnx.TensorProto(
            name=TYPICAL_NAME, data_type=expression.data_type, dims=expression.shape
        )
        return framed_bytes(header.ByteSize() + framed_bytes(expression.data.nbytes))
    if isinstance(expression, Indices):
        return 0
    node = expression.to_proto([TYPICAL_NAME] * len(expression.inputs), TYPICAL_NAME)
    return framed_bytes(node.ByteSize())


def framed_bytes(size: int) -> int:
    """Bytes of a length-delimited protobuf field that holds ``size`` bytes."""
    return 1 + max(1, (size.bit_length() + 6) // 7) + size


def cast(expression: Expression, dtype: np.dtype[np.generic]) -> Operation:
    """The Cast operator."""
    to = onnx.helper.np_dtype_to_tensor_dtype(dtype)
    return Operation("Cast", (expression,), (("to", int(to)),))


def cast_to(operation: Operation) -> np.dtype[np.generic]:
    """The element type that a Cast operator gives.

    Raises:
        ValueError: The operator is no Cast to a known type.
    """
    match operation:
        case Operation("Cast", (_,), (("to", int(to)),)) if (
            to in onnx.TensorProto.DataType.values()
        ):
            return np.dtype(onnx.helper.tensor_dtype_to_np_dtype(to))
    raise ValueError(f"{operation.op_type} gives no element type")


def gather(data: Expression, indices: Expression) -> Operation:
    """The Gather operator along axis 0."""
    return Operation("Gather", (data, indices))


def reshape(expression: Expression, shape: Sequence[int]) -> Operation:
    """The Reshape operator (opset 5 and later)."""
    return Operation("Reshape", (expression, Leaf.of(np.array(shape, np.int64), shared=True)))


def keep_first(expression: Expression, count: int, opset: int) -> Operation:
    """The Slice operator: the first ``count`` elements of a one-dimensional tensor."""
    if opset < 10:  # noqa: PLR2004 - Slice takes its bounds as inputs from opset 10 on
        bounds = (("ends", (count,)), ("starts", (0,)))
        return Operation("Slice", (expression,), bounds)
    zero = Leaf.of(np.zeros(1, np.int64), shared=True)
    return Operation(
        "Slice", (expression, zero, Leaf.of(np.array([count], np.int64), shared=True))
    )
