"""What a graph declares of its inputs, outputs and intermediate tensors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from onnxcomp.graph.model import Tensor

FIRST_IR_WITHOUT_LISTED_INITIALIZERS = 4
"""Before, all are inputs too and none can be overridden; since, those can that are inputs."""


def element_type(data_type: int) -> np.dtype[Any]:
    """Return numpy's name for an element type; strings are objects.

    Raises:
        ValueError: There is no such type.
    """
    if data_type == onnx.TensorProto.STRING:
        return np.dtype(object)
    try:
        return np.dtype(onnx.helper.tensor_dtype_to_np_dtype(data_type))
    except KeyError:
        raise ValueError(f"unknown element type {data_type}") from None


def declared(info: onnx.ValueInfoProto) -> tuple[np.dtype[Any] | None, list[Any] | None]:
    """Element type and shape that a declaration gives; None for what it does not give."""
    if info.type.WhichOneof("value") != "tensor_type":
        return None, None
    tensor = info.type.tensor_type
    dtype = element_type(tensor.elem_type) if tensor.elem_type else None
    if not tensor.HasField("shape"):
        return dtype, None
    return dtype, [_size(dim) for dim in tensor.shape.dim]


def _size(dim: onnx.TensorShapeProto.Dimension) -> int | str | None:
    field = dim.WhichOneof("value")
    return None if field is None else getattr(dim, field)


def declare(tensor: Tensor) -> onnx.ValueInfoProto:
    """Return the declaration of a tensor: the one it was read with unless a pass changed it."""
    source = getattr(tensor, "source", None)
    if source is not None and declared(source) == (tensor.dtype, tensor.shape):
        info = onnx.ValueInfoProto()
        info.CopyFrom(source)
        info.name = tensor.name
        return info
    if tensor.dtype is None:
        return onnx.helper.make_empty_tensor_value_info(tensor.name)
    data_type = (
        onnx.TensorProto.STRING
        if tensor.dtype == np.dtype(object)
        else onnx.helper.np_dtype_to_tensor_dtype(np.dtype(tensor.dtype))
    )
    return onnx.helper.make_tensor_value_info(tensor.name, data_type, tensor.shape)


def declare_inputs(
    inputs: Iterable[Tensor],
    source: Iterable[onnx.ValueInfoProto],
    constants: Mapping[str, Sequence[int]],
) -> list[onnx.ValueInfoProto]:
    """Declare a graph's inputs in the order of the file, and constants that may be overridden.

    Args:
        inputs: The graph's inputs.
        source: The inputs as they were read.
        constants: Shapes of the initializers that are still written, by name.
    """
    current = {tensor.name: tensor for tensor in inputs}
    infos = []
    for info in source:
        if info.name in current:
            infos.append(declare(current.pop(info.name)))
        elif info.name in constants:
            infos.append(_resized(info, constants[info.name]))
    return infos + [declare(tensor) for tensor in current.values()]


def _resized(info: onnx.ValueInfoProto, shape: Sequence[int]) -> onnx.ValueInfoProto:
    """Return the declaration of an initializer, with the shape that a pass may have given it."""
    resized = onnx.ValueInfoProto()
    resized.CopyFrom(info)
    for dim, size in zip(resized.type.tensor_type.shape.dim, shape, strict=False):
        if dim.HasField("dim_value"):
            dim.dim_value = size
    return resized


def declare_initializers(graph: onnx.GraphProto) -> None:
    """List every initializer among the inputs, as IR versions below 4 want it."""
    listed = {info.name for info in graph.input}
    graph.input.extend(
        onnx.helper.make_tensor_value_info(each.name, each.data_type, each.dims)
        for each in graph.initializer
        if each.name not in listed
    )


def hide_initializers(graph: onnx.GraphProto) -> None:
    """List no initializer among the inputs, as later IR versions do with what never changes."""
    held = {each.name for each in graph.initializer}
    inputs = [each for each in graph.input if each.name not in held]
    del graph.input[:]
    graph.input.extend(inputs)
