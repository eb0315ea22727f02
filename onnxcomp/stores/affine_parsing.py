"""Reading an affine decoding back: codes, scales and zero points out of the operators."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from onnxcomp.stores import expression as ex
from onnxcomp.stores.affine import AffineStore

if TYPE_CHECKING:
    from numpy.typing import NDArray


def affine_store(tree: ex.Expression, opset: int) -> AffineStore:
    """Return the store that wrote ``tree``, if one did, be it for a weight or for its rows.

    Raises:
        ValueError: None did.
    """
    dtype = None
    match tree:
        case ex.Operation("Cast", (ex.Operation("Mul" | "DequantizeLinear") as inner,)):
            dtype, tree = ex.cast_to(tree), inner
    match tree:
        case ex.Operation("DequantizeLinear"):
            return _dequantized(tree, dtype, opset)
        case ex.Operation():
            return _scaled(tree, dtype, opset)
    raise ValueError("no operator decodes anything")


def _dequantized(tree: ex.Operation, dtype: np.dtype[Any] | None, opset: int) -> AffineStore:
    codes, scale, *zero_points = (_elements(each) for each in tree.inputs)
    settings: dict[str, Any] = dict(tree.attributes)
    is_half = isinstance(tree.inputs[1], ex.Leaf) and scale.dtype == np.float16
    return AffineStore(
        codes.shape,
        dtype or np.dtype(np.float16 if is_half else np.float32),
        codes,
        opset,
        scale,
        zero_points[0] if zero_points else None,
        axis=settings.get("axis", 0),
        block_size=settings.get("block_size", 0),
    )


def _scaled(tree: ex.Operation, dtype: np.dtype[Any] | None, opset: int) -> AffineStore:
    scale = zero = None
    match tree:
        case ex.Operation("Mul", (ex.Operation() as inner, factor)):
            scale, tree = _elements(factor), inner
    match tree:
        case ex.Operation("Sub", (ex.Operation() as inner, factor)):
            zero, tree = _elements(factor), inner
    codes, axis = _elements(tree), 0
    if scale is not None and scale.ndim:
        # Channels have an axis of one for every axis that is behind theirs.
        axis = codes.ndim - scale.ndim
        scale = scale.reshape(-1)
        zero = None if zero is None else zero.reshape(-1)
    return AffineStore(
        codes.shape,
        dtype or ex.cast_to(tree),
        codes,
        opset,
        scale,
        zero,
        axis,
        is_dequantized=zero is not None,
    )


def _elements(tree: ex.Expression) -> NDArray[Any]:
    """The array behind a Cast and a Gather of rows; it may stay mapped from the file."""
    while isinstance(tree, ex.Operation):
        tree = tree.inputs[0]
    match tree:
        case ex.Leaf():
            return tree.array
    raise ValueError("indices are no array")
