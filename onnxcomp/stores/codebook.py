"""A weight as codes into a codebook (weight sharing, "palettization").

The forms, and what ONNX Runtime does with them, are those of the design: a byte gathers a row of
as many centroids as it has codes; below eight bits from opset 21 on the codes may be a UINT4 (25:
UINT2) tensor; codes of 3, 5, 6 or 7 bits are planes that are added. All of them are constant
subgraphs, which ONNX Runtime folds when it loads a session.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import gcd, lcm, prod
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import onnx

from onnxcomp.stores import expression as ex
from onnxcomp.stores.decoding import Decoding
from onnxcomp.stores.packing import digit_table, digits_per_byte, join_planes, split_planes
from onnxcomp.stores.unpacking import flat_codes, int32

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from onnxcomp.stores.entries import Codebook

FOLDING_LIMIT = 1 << 30
"""ONNX Runtime folds no node whose output has more bytes than this."""

TOO_LARGE = "is larger than 1 GiB, and ONNX Runtime folds nothing that large"
"""Why a weight whose decoding would not be folded is left alone."""

DECODED_AT_A_TIME = 1 << 22
"""Codes that `CodebookStore.load` looks up at once."""

NATIVE_TYPES = {
    16: (onnx.TensorProto.UINT4, 21),
    4: (getattr(onnx.TensorProto, "UINT2", 0), 25),
}
"""Base of the codes: the ONNX type that holds them, and the opset that casts from it."""


@dataclass(frozen=True, eq=False)
class CodebookStore(Decoding):
    """A weight of ``shape`` as codes, a codebook and perhaps a scale.

    Args:
        shape: The weight's shape.
        dtype: The weight's element type.
        codebook: What the codes stand for.
        planes: The packed codes; one plane except for 3, 5, 6 and 7 bits.
        bases: The base of the digits of each plane.
        axis: The axis that is moved to the front before the weight is cut into codes, so that a
            group of output channels is contiguous.
        scale: float, multiplied with the decoded values; of as many dimensions as the weight, and
            broadcast to its shape with ``axis`` moved.
        native: Whether the codes are a UINT4 or UINT2 tensor.
        opset: The opset that the decoding is written for.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    codebook: Codebook
    planes: tuple[NDArray[np.uint8], ...]
    bases: tuple[int, ...]
    opset: int
    axis: int = 0
    scale: NDArray[Any] | None = None
    native: bool = False

    kind: ClassVar[str] = "codebook"

    @property
    def code_count(self) -> int:
        """How many codes the weight has."""
        return prod(self.shape) // self.codebook.width

    @property
    def computed_dtype(self) -> np.dtype[Any]:
        """The type in which values are looked up and scaled."""
        if self.scale is None or self.dtype == np.float64:
            return self.dtype
        return np.dtype(np.float32)

    @property
    def moved_shape(self) -> tuple[int, ...]:
        """The shape with ``axis`` in front."""
        rest = self.shape[: self.axis] + self.shape[self.axis + 1 :]
        return (self.shape[self.axis], *rest)

    @property
    def codes(self) -> NDArray[np.uint8]:
        """The codes, shape (`code_count`,)."""
        return join_planes(self.planes, self.bases, self.code_count)

    def load(self) -> NDArray[Any]:
        """Decode: bit for bit what the operators compute."""
        entries = self.codebook.values(self.computed_dtype)
        result = np.empty(self.shape, self.dtype)
        moved = np.moveaxis(result, self.axis, 0)
        scale = None if self.scale is None else self.scale.astype(self.computed_dtype)
        codes, codes_a_group = self.codes, self.code_count // self.codebook.groups
        # In blocks, so that a large weight is held once only.
        for rows in self._blocks_of_rows(DECODED_AT_A_TIME, 1):
            part = self._codes_of(rows)
            indices = codes[part].astype(np.int32)
            if self.codebook.groups > 1:
                group = np.arange(part.start, part.stop, dtype=np.int64) // codes_a_group
                indices += (group * self.codebook.clusters).astype(np.int32)
            block = entries[indices].reshape(-1, *moved.shape[1:])
            if scale is not None:
                block *= np.broadcast_to(scale, moved.shape)[rows]
            moved[rows] = block
        return result

    def expression(self) -> ex.Expression:
        """The operators that decode the weight, none of them too large to be folded."""
        count = -(-self._largest_intermediate() // FOLDING_LIMIT)
        if count == 1:
            tree = self._moved()
        else:
            pieces = tuple(piece._moved() for piece in self._pieces(count))  # noqa: SLF001
            tree = ex.Operation("Concat", pieces, (("axis", 0),))
        if not self.axis:
            return tree
        back = (*range(1, self.axis + 1), 0, *range(self.axis + 1, len(self.shape)))
        return ex.Operation("Transpose", (tree,), (("perm", back),))

    @property
    def decodes_rows(self) -> bool:
        """Whether `row_expression` can be written: every row is whole bytes of one plane."""
        weights_per_byte = digits_per_byte(self.bases[0]) * self.codebook.width
        return (
            len(self.shape) == 2  # noqa: PLR2004 - a table of rows
            and (self.axis, self.codebook.groups, len(self.planes)) == (0, 1, 1)
            and self.shape[1] % weights_per_byte == 0
        )

    def row_expression(self, indices_rank: int) -> ex.Expression:
        """The operators that gather codes first and decode the gathered rows only.

        Args:
            indices_rank: The rank of the tensor that stands for `Indices`.
        """
        packed = ex.Leaf.of(self.planes[0].reshape(self.shape[0], -1))
        values = self._by_table(ex.gather(packed, ex.Indices()))
        tree = ex.reshape(values, (0,) * indices_rank + (self.shape[1],))
        return self._scaled(tree, gather_scale=True)

    def _largest_intermediate(self) -> int:
        int32_codes = 4 * self.code_count if self.native or not self._has_table else 0
        int32_bytes = 4 * max(len(plane) for plane in self.planes)
        values = prod(self.shape) * self.computed_dtype.itemsize
        return max(int32_codes, int32_bytes, values, 1)

    def _pieces(self, count: int) -> Iterator[CodebookStore]:
        """Cut the weight along its first moved axis into about ``count`` stores."""
        rows, groups = self.moved_shape[0], self.codebook.groups
        books = self.codebook.entries.reshape(groups, -1, self.codebook.width)
        codes, scale = self.codes, self.scale
        rows_a_group = rows // groups
        unit = rows_a_group if groups > 1 else 1
        for part in self._blocks_of_rows(self.code_count // count, unit):
            of_part = books
            if groups > 1:
                of_part = books[part.start // rows_a_group : part.stop // rows_a_group]
            entries = of_part.reshape(-1, self.codebook.width)
            yield replace(
                self,
                shape=(part.stop - part.start, *self.moved_shape[1:]),
                codebook=replace(self.codebook, entries=entries, groups=len(of_part)),
                planes=split_planes(codes[self._codes_of(part)], self.bases),
                axis=0,
                scale=scale[part] if scale is not None and len(scale) == rows else scale,
            )

    def _blocks_of_rows(self, codes: int, unit: int) -> Iterator[slice]:
        """Cut the moved axis into blocks of whole codes.

        Args:
            codes: The most codes of a block, unless the smallest possible has more.
            unit: A block's rows are a multiple of this.
        """
        rows, width = self.moved_shape[0], self.codebook.width
        weights_a_row = prod(self.shape) // rows
        unit = lcm(unit, width // gcd(width, weights_a_row))
        step = max(unit, codes * width // weights_a_row // unit * unit)
        for start in range(0, rows, step):
            yield slice(start, min(start + step, rows))

    def _codes_of(self, rows: slice) -> slice:
        weights_a_row = prod(self.shape) // self.moved_shape[0]
        width = self.codebook.width
        return slice(rows.start * weights_a_row // width, rows.stop * weights_a_row // width)

    @property
    def _has_table(self) -> bool:
        return self.codebook.groups == 1 and len(self.planes) == 1 and not self.native

    def _moved(self) -> ex.Expression:
        """The weight with ``axis`` in front."""
        values = self.codebook.expression(self.computed_dtype)
        tree: ex.Expression
        if self.native:
            data_type, _ = NATIVE_TYPES[self.bases[0]]
            flat = self.codebook.width > 1
            shape = (self.code_count,) if flat else self.moved_shape
            codes = int32(ex.Leaf(self.planes[0], data_type, shape))
            tree = ex.gather(values, codes)
            tree = ex.reshape(tree, self.moved_shape) if flat else tree
        elif self._has_table:
            tree = self._by_table(ex.Leaf.of(self.planes[0]))
            digits = len(self.planes[0]) * digits_per_byte(self.bases[0])
            if digits != self.code_count:
                tree = ex.keep_first(ex.reshape(tree, (-1,)), prod(self.shape), self.opset)
            tree = ex.reshape(tree, self.moved_shape)
        else:
            tree = ex.reshape(ex.gather(values, self._flat_codes()), self.moved_shape)
        return self._scaled(tree, gather_scale=False)

    def _by_table(self, packed: ex.Expression) -> ex.Expression:
        """Look every byte up in a table of the values that its digits stand for."""
        table = self.codebook.expression(self.computed_dtype)
        if digits_per_byte(self.bases[0]) > 1:
            digits = digit_table(self.bases[0])
            # A base above the number of entries has digits that no code uses.
            digits[digits >= self.codebook.clusters] = 0
            table = ex.gather(table, int32(ex.Leaf.of(digits, shared=True)))
        return ex.gather(table, int32(packed))

    def _flat_codes(self) -> ex.Expression:
        """Every code as an int32, counted from the first entry of the first group."""
        total = flat_codes(self.planes, self.bases, self.code_count, self.opset)
        groups = self.codebook.groups
        if groups == 1:
            return total
        first = np.arange(groups, dtype=np.int32)[:, None] * self.codebook.clusters
        return ex.Operation("Add", (ex.reshape(total, (groups, -1)), ex.Leaf.of(first)))

    def _scaled(self, tree: ex.Expression, *, gather_scale: bool) -> ex.Expression:
        if self.scale is None:
            return tree
        scale: ex.Expression = ex.Leaf.of(self.scale)
        if gather_scale and len(self.scale) > 1:
            scale = ex.gather(scale, ex.Indices())
        elif gather_scale:
            # Of one dimension, since a lone row, for a lone index, has no more.
            scale = ex.Leaf.of(self.scale.reshape(-1))
        if self.scale.dtype != self.computed_dtype:
            scale = ex.cast(scale, self.computed_dtype)
        tree = ex.Operation("Mul", (tree, scale))
        return tree if self.dtype == self.computed_dtype else ex.cast(tree, self.dtype)
