"""A weight as codes plus standard operators: what it costs, how it is written and read back."""

from onnxcomp.stores.affine import AffineStore
from onnxcomp.stores.building import leave_out_zeros, store_codes
from onnxcomp.stores.codebook import FOLDING_LIMIT, TOO_LARGE, CodebookStore
from onnxcomp.stores.entries import Codebook
from onnxcomp.stores.expression import MARK, Expression, Indices, Leaf, Operation, is_shared
from onnxcomp.stores.parsing import Store, parse_store
from onnxcomp.stores.sparse import SparseStore

__all__ = [
    "FOLDING_LIMIT",
    "MARK",
    "TOO_LARGE",
    "AffineStore",
    "Codebook",
    "CodebookStore",
    "Expression",
    "Indices",
    "Leaf",
    "Operation",
    "SparseStore",
    "Store",
    "is_shared",
    "leave_out_zeros",
    "parse_store",
    "store_codes",
]
