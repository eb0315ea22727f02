"""Operators that make packed digits into integers again."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from onnxcomp.stores import expression as ex
from onnxcomp.stores.packing import digit_table, digits_per_byte

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray


def int32(expression: ex.Expression) -> ex.Operation:
    """Widen what is stored in few bits to what a Gather takes as indices."""
    return ex.cast(expression, np.dtype(np.int32))


def flat_codes(
    planes: Sequence[NDArray[np.uint8]], bases: Sequence[int], count: int, opset: int
) -> ex.Expression:
    """The operators that give codes as int32, shape (count,).

    Args:
        planes: What `split_planes` made of the codes.
        bases: The base of the digits of each plane.
        count: How many codes there are.
        opset: The opset that the operators are written for.
    """
    total: ex.Expression | None = None
    place = 1
    for plane, base in zip(planes, bases, strict=True):
        codes: ex.Expression = int32(ex.Leaf.of(plane))
        if digits_per_byte(base) > 1:
            digits = ex.Leaf.of(digit_table(base) * np.uint8(place), shared=True)
            codes = ex.reshape(ex.gather(int32(digits), codes), (-1,))
        if len(plane) * digits_per_byte(base) != count:
            codes = ex.keep_first(codes, count, opset)
        total = codes if total is None else ex.Operation("Add", (total, codes))
        place *= base
    assert total is not None  # noqa: S101 - there is a plane
    return total
