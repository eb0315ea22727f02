"""Reading a sparse decoding back: places, packed elements and scale out of the operators."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from onnxcomp.stores import expression as ex
from onnxcomp.stores.affine_parsing import affine_store
from onnxcomp.stores.codebook_parsing import codebook_store, codes_of, integers, unscaled
from onnxcomp.stores.sparse import SparseStore

if TYPE_CHECKING:
    import numpy as np

    from onnxcomp.stores.affine import AffineStore
    from onnxcomp.stores.codebook import CodebookStore


def sparse_store(tree: ex.Expression, opset: int) -> SparseStore:
    """Return the store that may have written ``tree``.

    Raises:
        ValueError: None did.
    """
    axis = 0
    match tree:
        case ex.Operation("Transpose", (inner,), (("perm", perm),)):
            axis, tree = cast("tuple[int, ...]", perm).index(0), inner
    dtype: np.dtype[Any] | None = None
    match tree:
        case ex.Operation("Cast", (ex.Operation("Reshape" | "Mul") as inner,)):
            dtype, tree = ex.cast_to(tree), inner
    tree, _, scale = unscaled(tree)
    match tree:
        case ex.Operation("Reshape", (inner, ex.Leaf() as leaf)):
            rows, *rest = integers(leaf)
            tree = inner
        case _:
            raise ValueError("no sparse decoding ends like this")
    digits, found = _parts(tree)
    codes = codes_of(digits)
    payload = _payload(found, opset)
    return SparseStore(
        shape=(*rest[:axis], rows, *rest[axis:]),
        dtype=dtype or payload.dtype,
        places=codes.planes[0],
        base=codes.bases[0],
        payload=payload,
        opset=opset,
        axis=axis,
        scale=scale,
    )


def _parts(tree: ex.Expression) -> tuple[ex.Expression, ex.Expression]:
    """Return what gives the places, and what the packed elements."""
    match tree:
        case ex.Operation(
            "Gather",
            (
                ex.Operation("Concat", (_, payload)),
                ex.Operation("Mul", (_, digits)),
            ),
        ):
            return digits, payload
        case ex.Operation("ScatterElements", (_, ex.Operation("CumSum", (digits, _)), payload)):
            return digits, payload
    raise ValueError("nothing is put in its places")


def _payload(tree: ex.Expression, opset: int) -> CodebookStore | AffineStore:
    """Return the store of the packed elements: the one that writes the same operators."""
    for read in (codebook_store, affine_store):
        try:
            store = read(tree, opset)
            if ex.equal(store.expression(), tree):
                return store
        except (ValueError, IndexError, KeyError, TypeError):
            continue
    raise ValueError("no store packs this")
