"""A weight as integers, or narrower floats, times a scale (uniform quantization).

Two forms. DequantizeLinear, which ONNX Runtime never folds and, beside the right operators, turns
into integer kernels; and Cast and Mul, which it folds when it loads a session, for all the others.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import ml_dtypes
import numpy as np

from onnxcomp.stores import expression as ex
from onnxcomp.stores.decoding import Decoding

if TYPE_CHECKING:
    from numpy.typing import NDArray

FLOAT16, FLOAT32, FLOAT64 = (np.dtype(kind) for kind in (np.float16, np.float32, np.float64))

CAST_SINCE = {
    np.dtype(kind): opset
    for opset, kinds in {
        7: (np.int8, np.uint8, np.int16, np.uint16, np.int32, np.float16, np.float32, np.float64),
        13: (ml_dtypes.bfloat16,),
        19: (ml_dtypes.float8_e4m3fn, ml_dtypes.float8_e5m2),
        21: (ml_dtypes.int4, ml_dtypes.uint4),
        25: (ml_dtypes.int2, ml_dtypes.uint2),
    }.items()
    for kind in kinds
}
"""The opset from which on a Cast takes, or gives, an element type."""

DEQUANTIZED_SINCE = {
    np.dtype(kind): opset
    for opset, kinds in {
        10: (np.int8, np.uint8, np.int32),
        19: (ml_dtypes.float8_e4m3fn, ml_dtypes.float8_e5m2),
        21: (np.int16, np.uint16, ml_dtypes.int4, ml_dtypes.uint4),
        25: (ml_dtypes.int2, ml_dtypes.uint2),
    }.items()
    for kind in kinds
}
"""The opset from which on DequantizeLinear takes an element type."""

WITHOUT_ZERO_POINT = {
    np.dtype(kind) for kind in (np.int32, ml_dtypes.float8_e4m3fn, ml_dtypes.float8_e5m2)
}
"""The element types that DequantizeLinear takes without a zero point only."""

GATHERED = {
    np.dtype(kind)
    for kind in (
        *(np.int8, np.uint8, np.int16, np.uint16, np.int32),
        *(np.float16, ml_dtypes.bfloat16),
    )
}
"""The element types of which a Gather takes rows: all of eight bits or more but float8."""


@dataclass(frozen=True, eq=False)
class AffineStore(Decoding):
    """A weight of ``shape`` as codes times a scale: ``(codes - zero_point) * scale``.

    Args:
        shape: The weight's shape.
        dtype: The weight's element type.
        codes: int8, uint8, int16, uint16, int32, float16, or of `ml_dtypes` int4, uint4, int2,
            uint2, bfloat16, float8_e4m3fn or float8_e5m2; of the weight's shape.
        opset: The opset that the decoding is written for.
        scale: float32 or float16; one number (0-d), or one for each channel, shape (channels,),
            or, with ``block_size``, one for each block: the weight's shape with ``axis`` divided
            by it and rounded up. None: the codes are the values.
        zero_point: What stands for zero, of the codes' type and the scale's shape; for
            DequantizeLinear of codes other than int32 and float8. None: 0.
        axis: The axis of the channels, or that is cut into blocks; of no meaning to one scale.
        block_size: Codes along ``axis`` that share a scale, for DequantizeLinear; 0: no blocks.
        is_dequantized: Whether DequantizeLinear decodes it. If not, or without a scale, it is a
            Cast, and nothing but the caller sees to it that no result is larger than
            `FOLDING_LIMIT`.

    Raises:
        ValueError: The arguments contradict each other, or the opset is below `least_opset`.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    codes: NDArray[Any]
    opset: int
    scale: NDArray[Any] | None = None
    zero_point: NDArray[Any] | None = None
    axis: int = 0
    block_size: int = 0
    is_dequantized: bool = True

    kind: ClassVar[str] = "affine"

    def __post_init__(self) -> None:
        if self.codes.shape != self.shape:
            raise ValueError(f"codes have shape {self.codes.shape}, the weight {self.shape}")
        if self.scale is not None and self.scale.shape not in self._scale_shapes:
            raise ValueError(f"a scale of shape {self.scale.shape} does not fit {self.shape}")
        if self.zero_point is not None:
            self._check_zero_point(self.zero_point)
        if self.block_size and len(self.shape) < 2:  # noqa: PLR2004 - a matrix
            raise ValueError("a vector has no blocks")
        if self.block_size and self._is_cast:
            raise ValueError("only DequantizeLinear takes blocks")
        if not self._is_cast and self.dtype == FLOAT64:
            raise ValueError("DequantizeLinear gives no float64")
        if self.opset < self.least_opset:
            raise ValueError(f"the decoding needs opset {self.least_opset}, not {self.opset}")

    def _check_zero_point(self, zero: NDArray[Any]) -> None:
        if self._is_cast or self.scale is None or self.codes.dtype in WITHOUT_ZERO_POINT:
            raise ValueError("only DequantizeLinear of at most 16-bit integers has a zero point")
        if (zero.dtype, zero.shape) != (self.codes.dtype, self.scale.shape):
            raise ValueError("a zero point has the codes' type and the scale's shape")

    @property
    def least_opset(self) -> int:
        """The least opset that has the operators of the decoding.

        Raises:
            ValueError: No opset has them.
        """
        since = CAST_SINCE if self._is_cast else DEQUANTIZED_SINCE
        if self.codes.dtype not in since:
            operator = "Cast" if self._is_cast else "DequantizeLinear"
            raise ValueError(f"{operator} takes no {self.codes.dtype} codes")
        needed = [since[self.codes.dtype]]
        if self._is_cast or self._dequantized_dtype != self.dtype:
            needed.append(CAST_SINCE[self.dtype])
        elif self.dtype == FLOAT16:
            needed.append(19)
        if self.scale is not None and not self._is_cast:
            needed += [13] if self.scale.ndim else []
            needed += [21] if self.block_size else []
        return max(needed)

    @property
    def computed_dtype(self) -> np.dtype[Any]:
        """The type in which codes are scaled."""
        if self.scale is None or self.dtype == FLOAT64:
            return self.dtype
        return FLOAT32

    def load(self) -> NDArray[Any]:
        """Decode: bit for bit what the operators compute."""
        result = self.codes.astype(self.computed_dtype)
        # Codes that have a zero point are integers of 16 bits, which floats subtract exactly.
        if self.zero_point is not None:
            result -= self._spread(self.zero_point)
        if self.scale is not None:
            result *= self._spread(self.scale)
        return result.astype(self.dtype, copy=False)

    def expression(self) -> ex.Expression:
        """The operators that decode the weight."""
        codes = ex.Leaf.of(self.codes)
        if self.scale is None or not self.is_dequantized:
            return self._scaled(codes, of_rows=False)
        result = self._dequantized_dtype
        inputs: list[ex.Expression] = [codes, ex.Leaf.of(self.scale)]
        if self.scale.dtype != result:
            inputs[1] = ex.cast(inputs[1], result)
        if self.zero_point is not None:
            inputs.append(ex.Leaf.of(self.zero_point))
        # One scale has no axis, and ONNX Runtime's fusions want it to have none.
        settings = {"axis": self.axis} if self.scale.ndim else {}
        settings |= {"block_size": self.block_size} if self.block_size else {}
        tree = ex.Operation("DequantizeLinear", tuple(inputs), tuple(settings.items()))
        return tree if result == self.dtype else ex.cast(tree, self.dtype)

    @property
    def decodes_rows(self) -> bool:
        """Whether `row_expression` can be written."""
        is_table = len(self.shape) == 2  # noqa: PLR2004 - a table of rows
        return is_table and not self.block_size and self.codes.dtype in GATHERED

    def row_expression(self, indices_rank: int) -> ex.Expression:
        """The operators that gather codes first and decode the gathered rows only.

        They are those of the Cast form for both, since nothing fuses what is behind a Gather.

        Args:
            indices_rank: The rank of the tensor that stands for `Indices`; all are treated alike.
        """
        del indices_rank
        return self._scaled(ex.gather(ex.Leaf.of(self.codes), ex.Indices()), of_rows=True)

    @property
    def _is_cast(self) -> bool:
        return self.scale is None or not self.is_dequantized

    @property
    def _scale_shapes(self) -> tuple[tuple[int, ...], ...]:
        """The shapes that a scale may have."""
        before, size = self.shape[: self.axis], self.shape[self.axis : self.axis + 1]
        if not self.block_size:
            return (), size
        blocks = tuple(-(-each // self.block_size) for each in size)
        return ((*before, *blocks, *self.shape[self.axis + 1 :]),)

    @property
    def _dequantized_dtype(self) -> np.dtype[Any]:
        """What DequantizeLinear gives: its scale's type."""
        is_half = self.scale is not None and self.scale.dtype == self.dtype == FLOAT16
        return FLOAT16 if is_half else FLOAT32

    def _spread(self, factors: NDArray[Any]) -> NDArray[Any]:
        """Bring scales or zero points to a shape that is broadcast to the weight's."""
        factors = factors.astype(self.computed_dtype)
        if not self.block_size:
            return self._aligned(factors)
        whole = (slice(None),) * self.axis
        return np.repeat(factors, self.block_size, self.axis)[*whole, : self.shape[self.axis]]

    def _aligned(self, factors: NDArray[Any]) -> NDArray[Any]:
        """Give channels as many axes of one behind them as the weight has."""
        if not factors.ndim:
            return factors
        return factors.reshape(-1, *[1] * (len(self.shape) - self.axis - 1))

    def _scaled(self, codes: ex.Expression, *, of_rows: bool) -> ex.Expression:
        tree = ex.cast(codes, self.computed_dtype)
        for op_type, factors in (("Sub", self.zero_point), ("Mul", self.scale)):
            if factors is None:
                continue
            factor: ex.Expression = ex.Leaf.of(self._aligned(factors))
            if of_rows and factors.ndim and not self.axis:
                factor = ex.gather(factor, ex.Indices())
            if factors.dtype != self.computed_dtype:
                factor = ex.cast(factor, self.computed_dtype)
            tree = ex.Operation(op_type, (tree, factor))
        return tree if self.dtype == self.computed_dtype else ex.cast(tree, self.dtype)
