"""In which form a weight's codes are stored, and which types they may have, as data."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any, Literal

import ml_dtypes
import numpy as np

from onnxcomp.runtime.dtypes import is_float

if TYPE_CHECKING:
    from collections.abc import Mapping


class Form(Enum):
    """How a layer uses its weight. The value says it in a verdict."""

    INTEGER = "computed with integers"
    FLOAT8 = "computed with floats of 8 bits"
    DYNAMIC = "computed with integers, activations rounded as they come"
    BLOCKS = "in blocks that are multiplied as they are"
    FOLDED = "stored, and folded when the model is loaded"


@dataclass(frozen=True)
class WeightType:
    """An element type of weights.

    Args:
        dtype: What codes are stored as; None for those of a codebook.
        most: The largest code; 0 for floats without a scale.
        opset: The opset that has blocks of it; of float8, that has it at all.
        has_zero: Whether zero is a code.
        divisor: Blocks are for matrices whose outputs this divides: ONNX Runtime (1.31) multiplies
            others wrongly when it fuses them.
        folded: For a type that counts from a zero point of each block: the type, by name, of
            weights that are in no blocks.
    """

    dtype: np.dtype[Any] | None
    most: int
    opset: int = 21
    has_zero: bool = True
    divisor: int = 1
    folded: str = ""

    @property
    def floats(self) -> np.dtype[Any] | None:
        """What codes are stored as if they are floats."""
        return self.dtype if self.dtype is not None and is_float(self.dtype) else None


Float8 = Literal["float8e4m3fn", "float8e5m2"]

FLOAT8: Mapping[str, np.dtype[Any]] = {
    "float8e4m3fn": np.dtype(ml_dtypes.float8_e4m3fn),
    "float8e5m2": np.dtype(ml_dtypes.float8_e5m2),
}
"""Floats of 8 bits, by the names that ONNX has for them."""

FIRST_OPSET_OF_FLOAT8 = 19
"""Of Cast, QuantizeLinear and DequantizeLinear."""

WEIGHT_TYPES: Mapping[str, WeightType] = {
    "int8": WeightType(np.dtype(np.int8), 127),
    "int16": WeightType(np.dtype(np.int16), 32767),
    "int4": WeightType(np.dtype(ml_dtypes.int4), 7),
    "uint4": WeightType(np.dtype(ml_dtypes.uint4), 15, folded="int4"),
    "int2": WeightType(np.dtype(ml_dtypes.int2), 1, 25, divisor=4),
    "ternary": WeightType(None, 1),
    "binary": WeightType(None, 1, has_zero=False),
    "float16": WeightType(np.dtype(np.float16), 0),
    **{
        name: WeightType(dtype, int(ml_dtypes.finfo(dtype).max), FIRST_OPSET_OF_FLOAT8)
        for name, dtype in FLOAT8.items()
    },
}
"""By name."""

CODEBOOKS = 8
"""With at most so many codes of each sign, a codebook stores them at any opset."""
