"""A weight as codes plus standard operators: what it costs, how it is written and read back."""

from onnxcomp.stores.affine import AffineStore
from onnxcomp.stores.building import store_codes
from onnxcomp.stores.codebook import FOLDING_LIMIT, CodebookStore
from onnxcomp.stores.entries import Codebook
from onnxcomp.stores.expression import MARK, Expression, Indices, Leaf, Operation, is_shared
from onnxcomp.stores.parsing import Store, parse_store

__all__ = [
    "FOLDING_LIMIT",
    "MARK",
    "AffineStore",
    "Codebook",
    "CodebookStore",
    "Expression",
    "Indices",
    "Leaf",
    "Operation",
    "Store",
    "is_shared",
    "parse_store",
    "store_codes",
]
