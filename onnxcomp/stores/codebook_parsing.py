"""Reading a decoding by a codebook back: codes, entries and scales out of the operators."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import prod
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import onnx

from onnxcomp.stores import expression as ex
from onnxcomp.stores.building import RADIX_BASES
from onnxcomp.stores.codebook import NATIVE_TYPES, CodebookStore
from onnxcomp.stores.entries import Codebook
from onnxcomp.stores.packing import digits_per_byte, split_planes

if TYPE_CHECKING:
    from numpy.typing import NDArray

UNKNOWN = "no codebook decodes this"

BASE_OF_DIGITS = {digits_per_byte(base): base for base in RADIX_BASES}


@dataclass(frozen=True)
class Codes:
    """Packed codes as they were found.

    Args:
        planes: Their planes.
        bases: The base of each.
        groups: Groups of the codebook, each with codes from 0 on.
        native_shape: The shape of a tensor of codes below eight bits; None for bytes.
    """

    planes: tuple[NDArray[np.uint8], ...]
    bases: tuple[int, ...]
    groups: int = 1
    native_shape: tuple[int, ...] | None = None


def codebook_store(tree: ex.Expression, opset: int) -> CodebookStore:
    """Return the store that may have written ``tree``.

    Raises:
        ValueError: None did.
    """
    axis = 0
    match tree:
        case ex.Operation("Transpose", (inner,), (("perm", perm),)):
            axis, tree = cast("tuple[int, ...]", perm).index(0), inner
    match tree:
        case ex.Operation("Concat", pieces):
            store = _joined([_moved(piece, opset) for piece in pieces])
        case _:
            store = _moved(tree, opset)
    rows, *rest = store.shape
    return replace(store, axis=axis, shape=(*rest[:axis], rows, *rest[axis:]))


def _joined(pieces: list[CodebookStore]) -> CodebookStore:
    first = pieces[0]
    codebook = first.codebook
    # Pieces of a grouped store hold their own groups, be it one each; others repeat the codebook.
    if any(not np.array_equal(piece.codebook.entries, codebook.entries) for piece in pieces):
        entries = np.concatenate([piece.codebook.entries for piece in pieces])
        groups = sum(piece.codebook.groups for piece in pieces)
        codebook = replace(codebook, entries=entries, groups=groups)
    scale = first.scale
    if scale is not None and len(scale) == first.shape[0]:
        scale = np.concatenate([cast("NDArray[Any]", piece.scale) for piece in pieces])
    return replace(
        first,
        shape=(sum(piece.shape[0] for piece in pieces), *first.shape[1:]),
        codebook=codebook,
        planes=split_planes(np.concatenate([piece.codes for piece in pieces]), first.bases),
        scale=scale,
    )


def _moved(tree: ex.Expression, opset: int) -> CodebookStore:
    tree, dtype, scale = unscaled(tree)
    shape: tuple[int, ...] | None = None
    match tree:
        case ex.Operation("Reshape", (inner, ex.Leaf() as leaf)):
            shape, tree = integers(leaf), inner
    match tree:
        case ex.Operation("Slice", (ex.Operation("Reshape", (inner, _)), *_)):
            tree = inner
    match tree:
        case ex.Operation("Gather", (values, indices)):
            return _store(values, indices, shape, dtype, scale, opset)
    raise ValueError(UNKNOWN)


def codebook_rows(tree: ex.Expression, opset: int) -> tuple[CodebookStore, int]:
    """Return the store whose rows ``tree`` may decode, and the rank of the indices.

    Raises:
        ValueError: There is none.
    """
    tree, dtype, scale = unscaled(tree)
    match tree:
        case ex.Operation(
            "Reshape",
            (
                ex.Operation(
                    "Gather",
                    (
                        values,
                        ex.Operation(
                            "Cast",
                            (ex.Operation("Gather", (ex.Leaf() as packed, ex.Indices())),),
                        ),
                    ),
                ),
                ex.Leaf() as leaf,
            ),
        ):
            *zeros, columns = integers(leaf)
            shape = (packed.shape[0], columns)
            scale = scale[None] if scale is not None and scale.ndim == 1 else scale
            flat = ex.Operation("Cast", (ex.Leaf.of(packed.array.reshape(-1)),))
            return _store(values, flat, shape, dtype, scale, opset), len(zeros)
    raise ValueError(UNKNOWN)


def _store(  # noqa: PLR0917 - what the callers found
    values: ex.Expression,
    indices: ex.Expression,
    shape: tuple[int, ...] | None,
    dtype: np.dtype[Any] | None,
    scale: NDArray[Any] | None,
    opset: int,
) -> CodebookStore:
    base = None
    match values:
        case ex.Operation("Gather", (entries, ex.Operation("Cast", (ex.Leaf() as digits,)))):
            base, values = BASE_OF_DIGITS[digits.shape[1]], entries
    codebook, computed = _codebook(values)
    codes = codes_of(indices)
    if base is not None:
        codes = replace(codes, bases=(base,))
    shape = shape if shape is not None else codes.native_shape
    if shape is None:
        raise ValueError(UNKNOWN)
    return CodebookStore(
        shape=shape,
        dtype=dtype or computed,
        codebook=replace(codebook, groups=codes.groups),
        planes=codes.planes,
        bases=codes.bases,
        opset=opset,
        scale=scale,
        native=codes.native_shape is not None,
    )


def unscaled(
    tree: ex.Expression,
) -> tuple[ex.Expression, np.dtype[Any] | None, NDArray[Any] | None]:
    """Return what is scaled, the type that it is cast to afterwards, and the scale."""
    dtype = None
    match tree:
        case ex.Operation("Cast", (ex.Operation("Mul") as product,), (("to", to),)):
            dtype, tree = _dtype(to), product
    match tree:
        case ex.Operation("Mul", (inner, factor)):
            scale: ex.Expression = factor
            while isinstance(scale, ex.Operation):
                scale = scale.inputs[0]
            if isinstance(scale, ex.Leaf):
                return inner, dtype, scale.array
    return tree, dtype, None


def _codebook(tree: ex.Expression) -> tuple[Codebook, np.dtype[Any]]:
    dtype = None
    match tree:
        case ex.Operation("Cast", (inner,), (("to", to),)):
            dtype, tree = _dtype(to), inner
    match tree:
        case ex.Leaf():
            entries, unit = tree.array, None
        case ex.Operation(
            "Mul", (ex.Operation("Cast", (ex.Leaf() as leaf,)), ex.Leaf() as scalar)
        ):
            entries, unit = leaf.array, cast("NDArray[np.float32]", scalar.array)
            dtype = dtype or np.dtype(np.float32)
        case _:
            raise ValueError(UNKNOWN)
    entries = entries if entries.ndim > 1 else entries[:, None]
    return Codebook(entries, unit=unit), dtype or entries.dtype


def codes_of(tree: ex.Expression) -> Codes:
    """Return the packed codes that operators unpack.

    Raises:
        ValueError: They unpack none.
    """
    match tree:
        case ex.Operation("Cast", (ex.Leaf() as leaf,)) if (
            leaf.data_type == onnx.TensorProto.UINT8
        ):
            return Codes((_bytes(leaf),), (256,))
        case ex.Operation("Cast", (ex.Leaf() as leaf,)):
            base = next(b for b, (type_, _) in NATIVE_TYPES.items() if type_ == leaf.data_type)
            per_byte = digits_per_byte(base)
            packed = np.frombuffer(leaf.data, np.uint8)[: -(-prod(leaf.shape) // per_byte)]
            return Codes((packed,), (base,), native_shape=leaf.shape)
        case ex.Operation("Add", (ex.Operation("Reshape", (total, _)), ex.Leaf() as first)) if (
            len(first.shape) == 2  # noqa: PLR2004 - one offset a group, in a column
        ):
            return replace(codes_of(total), groups=first.shape[0])
        case ex.Operation("Add", (lower, upper)):
            one, other = codes_of(lower), codes_of(upper)
            return Codes(one.planes + other.planes, one.bases + other.bases)
        case ex.Operation("Slice", (inner, *_)):
            return codes_of(inner)
        case ex.Operation(
            "Reshape",
            (
                ex.Operation("Gather", (ex.Operation("Cast", (ex.Leaf() as digits,)), packed)),
                _,
            ),
        ):
            return replace(codes_of(packed), bases=(BASE_OF_DIGITS[digits.shape[1]],))
    raise ValueError(UNKNOWN)


def _bytes(leaf: ex.Leaf) -> NDArray[np.uint8]:
    return np.frombuffer(leaf.data, np.uint8)


def integers(leaf: ex.Leaf) -> tuple[int, ...]:
    """Return the numbers of a stored shape."""
    return tuple(int(each) for each in leaf.array.reshape(-1))


def _dtype(to: int | tuple[int, ...]) -> np.dtype[Any]:
    return np.dtype(onnx.helper.tensor_dtype_to_np_dtype(cast("int", to)))
