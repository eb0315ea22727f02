"""A weight as the places of those of its elements that are not zero, and these elements packed.

Two forms. A bit for each element of the weight, whose running sum says which packed element is
its; and the steps from each place to the next, whose running sum says where it is, for weights
that are nearly empty. Both are constant subgraphs, which ONNX Runtime folds when it loads a
session; its kernels know no zeros, so that nothing runs faster.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import prod
from typing import TYPE_CHECKING, Any, ClassVar

import ml_dtypes
import numpy as np

from onnxcomp.stores import expression as ex
from onnxcomp.stores.codebook import FOLDING_LIMIT
from onnxcomp.stores.decoding import Decoding
from onnxcomp.stores.packing import pack, unpack
from onnxcomp.stores.unpacking import flat_codes

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Self

    from numpy.typing import NDArray

    from onnxcomp.stores.affine import AffineStore
    from onnxcomp.stores.codebook import CodebookStore

    Payload = CodebookStore | AffineStore

SINCE_OPSET = 11
"""The opset that has CumSum and ScatterElements."""

BITMASK = 2
"""The base of places that are a bit for each element; others are steps."""

STEP_BASES = (16, 256)
"""Bases of steps, which are less than that."""

MOST_ELEMENTS = FOLDING_LIMIT // np.dtype(np.int32).itemsize - 8
"""A larger weight has a running sum that is not folded."""


@dataclass(frozen=True, eq=False)
class SparseStore(Decoding):
    """A weight of ``shape`` that is zero but for some places.

    Args:
        shape: The weight's shape.
        dtype: The weight's element type.
        places: Packed digits of ``base``: a bit for each element, 1 where it is stored; or, from
            each stored element to the next, how many places it is further, the first counted from
            0. Elements are counted as the weight has them with ``axis`` in front.
        base: 2 for bits; 16 or 256 for steps.
        payload: What stands at these places, zeros perhaps among it, shape (places,).
        opset: The opset that the decoding is written for.
        axis: The axis that is moved to the front before elements are counted.
        scale: float, multiplied with the whole weight; of as many dimensions as it, and broadcast
            to its shape with ``axis`` moved.

    Raises:
        ValueError: The opset has not the operators, or the weight is too large to be folded.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    places: NDArray[np.uint8]
    base: int
    payload: Payload
    opset: int
    axis: int = 0
    scale: NDArray[Any] | None = None

    kind: ClassVar[str] = "sparse"

    def __post_init__(self) -> None:
        if self.opset < SINCE_OPSET:
            raise ValueError(f"the decoding needs opset {SINCE_OPSET}, not {self.opset}")
        if prod(self.shape) > MOST_ELEMENTS:
            raise ValueError(f"a weight of more than {MOST_ELEMENTS} elements is not folded")
        if self.payload.dtype != computed_dtype(self.dtype, self.scale):
            raise ValueError(f"a payload of {self.payload.dtype} does not fit {self.dtype}")

    def load(self) -> NDArray[Any]:
        """Decode: bit for bit what the operators compute."""
        digits = unpack(self.places, self.base, self._digit_count)
        is_bitmask = self.base == BITMASK
        found = np.flatnonzero(digits) if is_bitmask else np.cumsum(digits, dtype=np.int64)
        flat = np.zeros(prod(self.shape), self.payload.dtype)
        flat[found] = self.payload.load()
        moved = flat.reshape(self._moved_shape)
        if self.scale is not None:
            moved *= self.scale.astype(moved.dtype)
        plain = np.moveaxis(moved.astype(self.dtype, copy=False), 0, self.axis)
        return np.ascontiguousarray(plain)

    def expression(self) -> ex.Expression:
        """The operators that decode the weight."""
        payload = replace(self.payload, opset=self.opset).expression()
        zero = ex.Leaf.of(np.zeros(1, self.payload.dtype), shared=True)
        digits = flat_codes([self.places], [self.base], self._digit_count, self.opset)
        first = ex.Leaf.of(np.zeros((), np.int32), shared=True)
        sums = ex.Operation("CumSum", (digits, first))
        if self.base == BITMASK:
            values = ex.Operation("Concat", (zero, payload), (("axis", 0),))
            tree = ex.gather(values, ex.Operation("Mul", (sums, digits)))
        else:
            size = ex.Leaf.of(np.array([prod(self.shape)], np.int64), shared=True)
            empty = ex.Operation("Expand", (zero, size))
            tree = ex.Operation("ScatterElements", (empty, sums, payload))
        return self._finished(ex.reshape(tree, self._moved_shape))

    @property
    def decodes_rows(self) -> bool:
        """Whether single rows can be decoded: where they begin in the payload is not known."""
        return False

    @property
    def _digit_count(self) -> int:
        return prod(self.shape) if self.base == BITMASK else prod(self.payload.shape)

    @property
    def _moved_shape(self) -> tuple[int, ...]:
        rest = self.shape[: self.axis] + self.shape[self.axis + 1 :]
        return (self.shape[self.axis], *rest)

    def _finished(self, tree: ex.Expression) -> ex.Expression:
        """Scale what is in place, and bring it to the weight's type and order."""
        computed = self.payload.dtype
        if self.scale is not None:
            scale: ex.Expression = ex.Leaf.of(self.scale)
            scale = scale if self.scale.dtype == computed else ex.cast(scale, computed)
            tree = ex.Operation("Mul", (tree, scale))
        tree = tree if self.dtype == computed else ex.cast(tree, self.dtype)
        if not self.axis:
            return tree
        back = (*range(1, self.axis + 1), 0, *range(self.axis + 1, len(self.shape)))
        return ex.Operation("Transpose", (tree,), (("perm", back),))


def computed_dtype(dtype: np.dtype[Any], scale: NDArray[Any] | None) -> np.dtype[Any]:
    """Return the type in which elements are put in their places and scaled."""
    # ONNX Runtime puts bfloat16 together in no operator.
    is_plain = scale is None and dtype != ml_dtypes.bfloat16
    return dtype if is_plain or dtype == np.float64 else np.dtype(np.float32)


@dataclass(frozen=True, eq=False)
class Places:
    """Which elements of a weight are stored, and how that is written down.

    Args:
        packed: As `SparseStore.places`.
        base: Likewise.
        stored: The places themselves, ascending; those that only bridge a gap included.
    """

    packed: NDArray[np.uint8]
    base: int
    stored: NDArray[np.int64]

    @classmethod
    def all_of(cls, support: NDArray[np.bool_]) -> Sequence[Self]:
        """Return every way to write down a support, shape (elements,)."""
        found = np.flatnonzero(support)
        # Nothing at all would be an empty tensor, which not every operator likes.
        found = found if len(found) else np.zeros(1, np.int64)
        bits = np.zeros(len(support), np.uint8)
        bits[found] = 1
        as_steps = (cls._of_steps(found, base) for base in STEP_BASES)
        return [cls(pack(bits, BITMASK), BITMASK, found), *as_steps]

    @classmethod
    def _of_steps(cls, found: NDArray[np.int64], base: int) -> Self:
        """Step from place to place, and where that is too far for a digit to what is zero."""
        longest = base - 1
        steps = np.diff(found, prepend=0)
        bridges = np.maximum(steps - 1, 0) // longest
        digits = np.full(len(found) + int(bridges.sum()), longest, np.int64)
        digits[np.cumsum(bridges + 1) - 1] = steps - bridges * longest
        packed = pack(digits.astype(np.uint8), base)
        return cls(packed, base, np.cumsum(digits))
