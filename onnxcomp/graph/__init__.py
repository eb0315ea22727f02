"""The only room that reads, writes, imports or exports models.

`load_model` reads a model lazily into a `Model`, which is an `onnx_graphsurgeon.Graph`;
`save_model` and `model_bytes` write it, `pack_model` packs its files for download. `weights` lists
what a pass may compress.
"""

from onnxcomp.graph.copying import copy_model
from onnxcomp.graph.exposing import expose, isolate, why_hidden
from onnxcomp.graph.lifting import store_of
from onnxcomp.graph.loading import (
    fingerprint,
    load_model,
    model_bytes,
    model_proto,
    referring_bytes,
)
from onnxcomp.graph.merging import merge_constants, merge_identical
from onnxcomp.graph.model import Graph, Model, Node, Variable, bodies_of
from onnxcomp.graph.opsets import raise_opset
from onnxcomp.graph.order import ordered, read_by
from onnxcomp.graph.overriding import override
from onnxcomp.graph.packing import pack_model, unpack_model
from onnxcomp.graph.rewriting import Load, rewritten
from onnxcomp.graph.saving import check_regular, is_same_file, save_model, save_unchanged
from onnxcomp.graph.values import (
    Constant,
    DecodedValues,
    SparseTensorValues,
    StoreValues,
    constant_of,
    is_fixed,
)
from onnxcomp.graph.weights import FLOATS, Weight, weights
from onnxcomp.graph.writing import count_bytes

__all__ = [
    "FLOATS",
    "Constant",
    "DecodedValues",
    "Graph",
    "Load",
    "Model",
    "Node",
    "SparseTensorValues",
    "StoreValues",
    "Variable",
    "Weight",
    "bodies_of",
    "check_regular",
    "constant_of",
    "copy_model",
    "count_bytes",
    "expose",
    "fingerprint",
    "is_fixed",
    "is_same_file",
    "isolate",
    "load_model",
    "merge_constants",
    "merge_identical",
    "model_bytes",
    "model_proto",
    "ordered",
    "override",
    "pack_model",
    "raise_opset",
    "read_by",
    "referring_bytes",
    "rewritten",
    "save_model",
    "save_unchanged",
    "store_of",
    "unpack_model",
    "weights",
    "why_hidden",
]
