"""Reading a decoding back into the store that wrote it.

A tree is recognised by its shape alone and then proven: the store that was read must write exactly
the tree that was found. What another tool changed is left as the ordinary operators that it is.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import prod
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import onnx

from onnxcomp.stores import expression as ex
from onnxcomp.stores.affine import AffineStore
from onnxcomp.stores.affine_parsing import affine_store
from onnxcomp.stores.building import RADIX_BASES
from onnxcomp.stores.codebook import NATIVE_TYPES, CodebookStore
from onnxcomp.stores.entries import Codebook
from onnxcomp.stores.packing import digits_per_byte, split_planes

if TYPE_CHECKING:
    from numpy.typing import NDArray

Store = CodebookStore | AffineStore

BASE_OF_DIGITS = {digits_per_byte(base): base for base in RADIX_BASES}


class _UnknownTreeError(Exception):
    """The tree was not written by a store."""


@dataclass(frozen=True)
class _Codes:
    planes: tuple[NDArray[np.uint8], ...]
    bases: tuple[int, ...]
    groups: int = 1
    native_shape: tuple[int, ...] | None = None


def parse_store(kind: str, tree: ex.Expression, opset: int) -> Store | None:
    """Return the store that wrote ``tree``, or None where there is none.

    Args:
        kind: What the mark on the decoding's last node says.
        tree: The operators and arrays that give the weight, or, with `Indices` in it, its rows.
        opset: The model's opset.
    """
    if kind not in {CodebookStore.kind, AffineStore.kind}:
        return None
    try:
        store, rank = _store_and_rank(kind, tree, opset)
        if rank is None:
            written = store.expression()
        elif store.decodes_rows:
            written = store.row_expression(rank)
        else:
            return None
        return store if ex.equal(written, tree) else None
    except (_UnknownTreeError, ValueError, IndexError, KeyError, TypeError):
        return None


def _store_and_rank(kind: str, tree: ex.Expression, opset: int) -> tuple[Store, int | None]:
    """Return what may have written ``tree``, and the rank of its indices if it has any."""
    has_indices = _has_indices(tree)
    if kind == AffineStore.kind:
        # It treats indices of all ranks alike.
        return affine_store(tree, opset), 0 if has_indices else None
    return _rows(tree, opset) if has_indices else (_weight(tree, opset), None)


def _has_indices(tree: ex.Expression) -> bool:
    if isinstance(tree, ex.Operation):
        return any(_has_indices(each) for each in tree.inputs)
    return isinstance(tree, ex.Indices)


def _weight(tree: ex.Expression, opset: int) -> CodebookStore:
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
    tree, dtype, scale = _unscaled(tree)
    shape: tuple[int, ...] | None = None
    match tree:
        case ex.Operation("Reshape", (inner, ex.Leaf() as leaf)):
            shape, tree = _integers(leaf), inner
    match tree:
        case ex.Operation("Slice", (ex.Operation("Reshape", (inner, _)), *_)):
            tree = inner
    match tree:
        case ex.Operation("Gather", (values, indices)):
            return _store(values, indices, shape, dtype, scale, opset)
    raise _UnknownTreeError


def _rows(tree: ex.Expression, opset: int) -> tuple[CodebookStore, int]:
    tree, dtype, scale = _unscaled(tree)
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
            *zeros, columns = _integers(leaf)
            shape = (packed.shape[0], columns)
            scale = scale[None] if scale is not None and scale.ndim == 1 else scale
            flat = ex.Operation("Cast", (ex.Leaf.of(packed.array.reshape(-1)),))
            return _store(values, flat, shape, dtype, scale, opset), len(zeros)
    raise _UnknownTreeError


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
    codes = _codes(indices)
    if base is not None:
        codes = replace(codes, bases=(base,))
    shape = shape if shape is not None else codes.native_shape
    if shape is None:
        raise _UnknownTreeError
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


def _unscaled(
    tree: ex.Expression,
) -> tuple[ex.Expression, np.dtype[Any] | None, NDArray[Any] | None]:
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
            raise _UnknownTreeError
    entries = entries if entries.ndim > 1 else entries[:, None]
    return Codebook(entries, unit=unit), dtype or entries.dtype


def _codes(tree: ex.Expression) -> _Codes:
    match tree:
        case ex.Operation("Cast", (ex.Leaf() as leaf,)) if (
            leaf.data_type == onnx.TensorProto.UINT8
        ):
            return _Codes((_bytes(leaf),), (256,))
        case ex.Operation("Cast", (ex.Leaf() as leaf,)):
            base = next(b for b, (type_, _) in NATIVE_TYPES.items() if type_ == leaf.data_type)
            per_byte = digits_per_byte(base)
            packed = np.frombuffer(leaf.data, np.uint8)[: -(-prod(leaf.shape) // per_byte)]
            return _Codes((packed,), (base,), native_shape=leaf.shape)
        case ex.Operation("Add", (ex.Operation("Reshape", (total, _)), ex.Leaf() as first)) if (
            len(first.shape) == 2  # noqa: PLR2004 - one offset a group, in a column
        ):
            return replace(_codes(total), groups=first.shape[0])
        case ex.Operation("Add", (lower, upper)):
            one, other = _codes(lower), _codes(upper)
            return _Codes(one.planes + other.planes, one.bases + other.bases)
        case ex.Operation("Slice", (inner, *_)):
            return _codes(inner)
        case ex.Operation(
            "Reshape",
            (
                ex.Operation("Gather", (ex.Operation("Cast", (ex.Leaf() as digits,)), packed)),
                _,
            ),
        ):
            return replace(_codes(packed), bases=(BASE_OF_DIGITS[digits.shape[1]],))
    raise _UnknownTreeError


def _bytes(leaf: ex.Leaf) -> NDArray[np.uint8]:
    return np.frombuffer(leaf.data, np.uint8)


def _integers(leaf: ex.Leaf) -> tuple[int, ...]:
    return tuple(int(each) for each in leaf.array.reshape(-1))


def _dtype(to: int | tuple[int, ...]) -> np.dtype[Any]:
    return np.dtype(onnx.helper.tensor_dtype_to_np_dtype(cast("int", to)))
