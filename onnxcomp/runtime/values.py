"""What ONNX Runtime returns, as arrays: sequences, maps, and types that NumPy lacks."""

import ctypes
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxcomp.errors import DataError
from onnxcomp.runtime.dtypes import DType, bits, is_beyond_numpy, onnx_number

Array = NDArray[Any]

_BYTE = 8


def array_of(value: object) -> Array:
    """Flatten one output to an array; arrays pass through untouched.

    Members of a sequence are stacked where their shapes are equal, else joined end to end. A map
    gives its values in the order of its sorted keys. None (an absent optional) is empty.
    """
    if isinstance(value, np.ndarray):
        return value
    if isinstance(value, Mapping):
        return _joined([value[key] for key in sorted(value)])
    if isinstance(value, list):
        return _joined(value)
    return np.empty(0, np.float32) if value is None else np.asarray(value)


def _joined(values: list[Any]) -> Array:
    members = [array_of(value) for value in values]
    if not members:
        return np.empty(0, np.float32)
    if len({member.shape for member in members}) == 1:
        return np.stack(members)
    return np.concatenate([member.ravel() for member in members])


def to_ort_value(array: Array) -> Any:
    """Hand an array to ONNX Runtime, also of a type that NumPy lacks.

    Raises:
        DataError: The type has less than 8 bits, which ONNX Runtime cannot be fed from Python.
    """
    import onnxruntime  # noqa: PLC0415

    if not is_beyond_numpy(array.dtype):
        return onnxruntime.OrtValue.ortvalue_from_numpy(array)
    if bits(array.dtype) < _BYTE:
        raise DataError(f"onnxruntime cannot be fed {array.dtype} from Python")
    raw = np.ascontiguousarray(array).view(f"u{array.dtype.itemsize}").reshape(array.shape)
    number = onnx_number(array.dtype)
    return onnxruntime.OrtValue.ortvalue_from_numpy_with_onnx_type(raw, number)


def from_ort_value(value: Any, dtype: DType | None) -> Array:
    """Return the array in an ONNX Runtime value, also of a type that NumPy lacks."""
    if dtype is None or not is_beyond_numpy(dtype):
        return array_of(value.numpy())
    shape = tuple(value.shape())
    count = int(np.prod(shape, dtype=np.int64))
    width = bits(dtype)
    raw = ctypes.string_at(value.data_ptr(), -(-count * width // _BYTE))
    if width >= _BYTE:
        return np.frombuffer(raw, dtype).reshape(shape)
    packed = np.frombuffer(raw, np.uint8)
    shifts = np.arange(0, _BYTE, width, dtype=np.uint8)
    codes = (packed[:, None] >> shifts & (1 << width) - 1).ravel()[:count].astype(np.int8)
    if dtype.name.startswith("int"):
        codes = np.where(codes >= 1 << (width - 1), codes - (1 << width), codes)
    return codes.astype(dtype).reshape(shape)
