"""Reading a decoding back into the store that wrote it.

A tree is recognised by its shape alone and then proven: the store that was read must write exactly
the tree that was found. What another tool changed is left as the ordinary operators that it is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from onnxcomp.stores import expression as ex
from onnxcomp.stores.affine import AffineStore
from onnxcomp.stores.affine_parsing import affine_store
from onnxcomp.stores.codebook import CodebookStore
from onnxcomp.stores.codebook_parsing import codebook_rows, codebook_store
from onnxcomp.stores.sparse import SparseStore
from onnxcomp.stores.sparse_parsing import sparse_store

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

Store = CodebookStore | AffineStore | SparseStore

WHOLE: Mapping[str, Callable[[ex.Expression, int], Store]] = {
    CodebookStore.kind: codebook_store,
    AffineStore.kind: affine_store,
    SparseStore.kind: sparse_store,
}
"""What reads a decoding of a whole weight, by the kind of store."""


def parse_store(kind: str, tree: ex.Expression, opset: int) -> Store | None:
    """Return the store that wrote ``tree``, or None where there is none.

    Args:
        kind: What the mark on the decoding's last node says.
        tree: The operators and arrays that give the weight, or, with `Indices` in it, its rows.
        opset: The model's opset.
    """
    if kind not in WHOLE:
        return None
    try:
        if _has_indices(tree):
            return _of_rows(kind, tree, opset)
        store = WHOLE[kind](tree, opset)
        return store if ex.equal(store.expression(), tree) else None
    except (ValueError, IndexError, KeyError, TypeError):
        return None


def _of_rows(kind: str, tree: ex.Expression, opset: int) -> Store | None:
    """Return the store whose rows ``tree`` decodes."""
    store: CodebookStore | AffineStore
    if kind == AffineStore.kind:
        # It treats indices of all ranks alike.
        store, rank = affine_store(tree, opset), 0
    elif kind == CodebookStore.kind:
        store, rank = codebook_rows(tree, opset)
    else:
        return None
    is_equal = store.decodes_rows and ex.equal(store.row_expression(rank), tree)
    return store if is_equal else None


def _has_indices(tree: ex.Expression) -> bool:
    if isinstance(tree, ex.Operation):
        return any(_has_indices(each) for each in tree.inputs)
    return isinstance(tree, ex.Indices)
