"""What constants hold: arrays that are read when they are needed, and never sooner.

GraphSurgeon's exporter and this package's own accept any `gs.LazyValues`; the subclasses here
differ in where the bytes are. None of them is ever changed in place: arrays come out read-only.
"""

from __future__ import annotations

from functools import cached_property
from math import prod
from typing import TYPE_CHECKING, Any, TypeGuard

import numpy as np
import onnx
import onnx_graphsurgeon as gs
from onnx_graphsurgeon.ir.tensor import LazyValues

from onnxcomp.errors import ModelError
from onnxcomp.graph.attributes import text_of
from onnxcomp.graph.declarations import element_type

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from onnxcomp.graph.external import DataFiles
    from onnxcomp.stores import Store


class TensorValues(LazyValues):
    """The values of a `onnx.TensorProto`, which is exported as it is.

    Args:
        tensor: The tensor; never changed.
        files: The data files of the model that the tensor is from.

    Raises:
        ModelError: External data is missing, too short or outside the model's folder.
    """

    def __init__(self, tensor: onnx.TensorProto, files: DataFiles) -> None:
        self.tensor = tensor
        self.shape = tuple(tensor.dims)
        self.dtype = element_type(tensor.data_type)
        is_external = tensor.data_location == onnx.TensorProto.EXTERNAL
        self.external: NDArray[np.uint8] | None = None
        if is_external:
            data, needed = files.read(tensor), packed_bytes(tensor.data_type, self.shape)
            if len(data) < needed:
                raise ModelError(
                    f"tensor {tensor.name!r} has {len(data)} bytes of external data, but its "
                    f"type and shape need {needed}"
                )
            self.external = data[:needed]

    @cached_property
    def nbytes(self) -> int:
        """Bytes of the stored elements; to look at a tensor's data is to copy it, so only once."""
        if self.external is not None:
            return len(self.external)
        return len(self.tensor.raw_data) or packed_bytes(self.tensor.data_type, self.shape)

    def packed(self) -> NDArray[np.uint8]:
        """Return the stored bytes, packed where the element type is below eight bits."""
        if self.external is not None:
            return self.external
        if self.tensor.raw_data:
            return np.frombuffer(self.tensor.raw_data, np.uint8)
        name = ""
        return np.frombuffer(onnx.numpy_helper.from_array(self.load(), name).raw_data, np.uint8)

    def load(self) -> NDArray[Any]:
        """Return the elements, read-only; mapped from the file where they are external."""
        if self.tensor.data_type == onnx.TensorProto.STRING:
            texts = [text_of(each) for each in self.tensor.string_data]
            array = np.array(texts, np.dtype(object)).reshape(self.shape)
        elif self.external is None:
            try:
                array = onnx.numpy_helper.to_array(self.tensor)
            except (ValueError, TypeError) as error:
                message = f"tensor {self.tensor.name!r} does not hold what its type and shape say"
                raise ModelError(message) from error
        elif len(self.external) == prod(self.shape) * self.dtype.itemsize:
            # A file may place a tensor at any byte; numpy wants aligned elements.
            aligned = self.external.ctypes.data % self.dtype.alignment == 0
            data = self.external if aligned else self.external.copy()
            array = data.view(self.dtype).reshape(self.shape)
        else:
            plain = onnx.TensorProto(data_type=self.tensor.data_type, dims=self.shape)
            plain.raw_data = self.external.tobytes()
            array = onnx.numpy_helper.to_array(plain)
        array.flags.writeable = False
        return array


class SparseTensorValues(LazyValues):
    """The values of a `onnx.SparseTensorProto` (COO), which is exported as it is."""

    nbytes: int

    def __init__(self, tensor: onnx.SparseTensorProto) -> None:
        self.tensor = tensor
        self.shape = tuple(tensor.dims)
        self.dtype = element_type(tensor.values.data_type)
        self.nbytes = tensor.ByteSize()

    def load(self) -> NDArray[Any]:
        """Return the elements as a dense array, read-only."""
        array = np.zeros(self.shape, self.dtype)
        values = onnx.numpy_helper.to_array(self.tensor.values)
        indices = onnx.numpy_helper.to_array(self.tensor.indices)
        if indices.ndim == 1:
            array.reshape(-1)[indices] = values
        else:
            array[tuple(indices.T)] = values
        array.flags.writeable = False
        return array


class StoredValues(LazyValues):
    """The values of a store, decoded when they are loaded."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.shape = store.shape
        self.dtype = store.dtype

    def load(self) -> NDArray[Any]:
        """Decode the store; read-only."""
        array = self.store.load()
        array.flags.writeable = False
        return array


class StoreValues(StoredValues):
    """The values of a store; the exporter writes the operators that decode it."""

    @property
    def nbytes(self) -> int:
        """Bytes of the store."""
        return self.store.nbytes


class DecodedValues(StoredValues):
    """The values of a store that the exporter decodes when it comes to them."""

    @property
    def nbytes(self) -> int:
        """Bytes of the decoded elements."""
        return prod(self.shape) * self.dtype.itemsize


class Constant(gs.Constant):
    """A constant whose ``values`` may be looked at without becoming resident.

    GraphSurgeon's own class replaces lazy values by the loaded array at the first look, which
    would undo a store and fill the memory.
    """

    __eq__ = object.__eq__
    __hash__ = object.__hash__

    node: onnx.NodeProto | None = None
    """The Constant node that it was read from; None for an initializer."""

    node_values: LazyValues | None = None
    """What that node holds; if it is not held any more, a pass changed it."""

    follower: gs.Node | None = None
    """The node that came after the Constant node."""

    may_be_overridden: bool = False
    """Whether it is an input too, for which a caller may feed another value."""

    @property
    def values(self) -> NDArray[Any]:
        """The elements; read-only unless a pass set an array of its own."""
        held = self._values
        loaded: NDArray[Any] = held.load() if isinstance(held, LazyValues) else held
        return loaded

    @values.setter
    def values(self, values: NDArray[Any] | LazyValues) -> None:
        self._values = values

    @property
    def held(self) -> NDArray[Any] | LazyValues:
        """What is held, without loading it."""
        return self._values

    @property
    def nbytes(self) -> int:
        """Bytes that the values add to a file."""
        held = self._values
        if isinstance(held, LazyValues):
            return int(held.nbytes)
        return packed_bytes(onnx.helper.np_dtype_to_tensor_dtype(held.dtype), held.shape)

    def copy(self) -> Constant:
        """Return a constant of the same values, without readers."""
        copied = Constant(self.name, self._values)
        copied.node, copied.node_values = self.node, self.node_values
        copied.may_be_overridden = self.may_be_overridden
        return copied


def is_fixed(tensor: gs.Tensor) -> TypeGuard[Constant]:
    """Whether a tensor is a constant for which no caller may feed another value."""
    return isinstance(tensor, Constant) and not tensor.may_be_overridden


def constant_of(tensor: gs.Tensor) -> Constant:
    """Return a tensor that is known to be a constant, as one."""
    assert isinstance(tensor, Constant)  # noqa: S101 - the caller has looked
    return tensor


def packed_bytes(data_type: int, shape: tuple[int, ...]) -> int:
    """Bytes of a tensor's raw data: elements below eight bits are packed."""
    count = prod(shape)
    names = onnx.TensorProto.DataType
    bits = {"UINT4": 4, "INT4": 4, "FLOAT4E2M1": 4, "UINT2": 2, "INT2": 2}.get(
        names.Name(data_type)
    )
    if bits is not None:
        return (count * bits + 7) // 8
    if data_type == onnx.TensorProto.STRING:
        return 0
    return int(count * element_type(data_type).itemsize)


def flat_bytes(array: NDArray[Any]) -> NDArray[np.uint8]:
    """Return the bytes of an array, without copying them."""
    return array.reshape(-1).view(np.uint8)


def bytes_of(constant: gs.Constant) -> NDArray[np.uint8]:
    """Load a constant's elements as raw data."""
    proto = onnx.numpy_helper.from_array(np.asarray(constant.values))
    return np.frombuffer(proto.raw_data, np.uint8)
