"""Element types: ONNX Runtime's words for them, and NumPy's."""

from types import MappingProxyType
from typing import Any

import ml_dtypes
import numpy as np

DType = np.dtype[Any]

# The number is ONNX's TensorProto.DataType, which ONNX Runtime asks for where NumPy has no type.
_BEYOND_NUMPY = {
    "bfloat16": (ml_dtypes.bfloat16, 16),
    "float8e4m3fn": (ml_dtypes.float8_e4m3fn, 17),
    "float8e4m3fnuz": (ml_dtypes.float8_e4m3fnuz, 18),
    "float8e5m2": (ml_dtypes.float8_e5m2, 19),
    "float8e5m2fnuz": (ml_dtypes.float8_e5m2fnuz, 20),
    "uint4": (ml_dtypes.uint4, 21),
    "int4": (ml_dtypes.int4, 22),
    "uint2": (ml_dtypes.uint2, 25),
    "int2": (ml_dtypes.int2, 26),
}
_PLAIN = {
    "float": np.float32,
    "double": np.float64,
    "float16": np.float16,
    "int8": np.int8,
    "int16": np.int16,
    "int32": np.int32,
    "int64": np.int64,
    "uint8": np.uint8,
    "uint16": np.uint16,
    "uint32": np.uint32,
    "uint64": np.uint64,
    "bool": np.bool_,
    "string": np.object_,
}
_DTYPES: MappingProxyType[str, DType] = MappingProxyType(
    {word: np.dtype(kind) for word, kind in _PLAIN.items()}
    | {word: np.dtype(kind) for word, (kind, _) in _BEYOND_NUMPY.items()}
)
_NUMBERS = MappingProxyType({np.dtype(kind): number for kind, number in _BEYOND_NUMPY.values()})
_BITS = MappingProxyType({"int4": 4, "uint4": 4, "int2": 2, "uint2": 2})


def element_type(word: str) -> DType | None:
    """Return the dtype behind ONNX Runtime's ``tensor(float)``; None for sequences and maps."""
    inner = word.removeprefix("optional(").removesuffix(")") if "optional" in word else word
    if not inner.startswith("tensor("):
        return None
    return _DTYPES.get(inner.removeprefix("tensor(").removesuffix(")"))


def is_beyond_numpy(dtype: DType) -> bool:
    """Tell whether ONNX Runtime cannot take or give this type as an array."""
    return dtype.kind == "V"


def is_float(dtype: DType) -> bool:
    """Tell whether the type holds floating point numbers, of whatever width."""
    return dtype.kind == "f" or (dtype.kind == "V" and "float" in dtype.name)


def bits(dtype: DType) -> int:
    """Return the width of one element in a packed tensor, in bits."""
    return _BITS.get(dtype.name, 8 * dtype.itemsize)


def onnx_number(dtype: DType) -> int:
    """Return ONNX's number of a type that NumPy lacks."""
    return _NUMBERS[dtype]
