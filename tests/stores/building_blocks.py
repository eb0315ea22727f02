"""Stores of every form, and models that read them."""

import numpy as np
import onnx
import onnxruntime
from onnx import helper as h
from onnx import numpy_helper as nh

from onnxcomp.graph import StoreValues, load_model
from onnxcomp.stores import Codebook, store_codes

NUMBERS = np.random.default_rng(0)
TYPES = {"float32": 1, "float16": 10, "float64": 11}


def make_store(
    clusters=16,
    shape=(8, 12),
    opset=17,
    form="tensor",
    *,
    width=1,
    entries="float32",
    dtype="float32",
    axis=0,
):
    """Return a store of random codes; ``form`` is tensor, group, rows or columns (scales)."""
    groups = 4 if form == "group" else 1
    count = int(np.prod(shape)) // width
    codes = NUMBERS.integers(0, clusters, count).astype(np.uint8)
    codes[:clusters] = np.arange(clusters)[:count]
    books = NUMBERS.standard_normal((clusters * groups, width))
    unit = None
    if entries == "int8":
        books, unit = np.round(books * 40).clip(-128, 127), np.array(0.025, np.float32)
    codebook = Codebook(books.astype(entries), groups, unit)
    moved = (shape[axis], *(size for each, size in enumerate(shape) if each != axis))
    scale = None
    if form in {"rows", "columns"}:
        along = 0 if form == "rows" else 1
        sizes = [size if each == along else 1 for each, size in enumerate(moved)]
        scale = NUMBERS.uniform(0.5, 2, sizes).astype(np.float32)
    return store_codes(
        codes, codebook, shape=shape, dtype=np.dtype(dtype), opset=opset, axis=axis, scale=scale
    )


def read_by(op, store):
    """Return a model in which one operator reads the store's weight, and a feed for it."""
    shape, kind = store.shape, TYPES[store.dtype.name]
    weight = nh.from_array(store.load(), "weight")
    feed = {"x": NUMBERS.standard_normal((3, shape[0])).astype(store.dtype)}
    inputs, attributes = ["x", "weight"], {}
    if op == "Conv":
        feed = {"x": NUMBERS.standard_normal((1, shape[1], *([6] * (len(shape) - 2))))}
        feed["x"] = feed["x"].astype(store.dtype)
    elif op == "Gather":
        feed = {"x": np.array([[0, 2], [shape[0] - 1, 1]])}
        inputs = ["weight", "x"]
    elif op == "Identity":
        feed, inputs = {}, ["weight"]
    elif op == "LSTM":
        hidden = shape[1] // 4
        feed = {"x": NUMBERS.standard_normal((5, 2, shape[2])).astype(np.float32)}
        recurrent = NUMBERS.standard_normal((shape[0], 4 * hidden, hidden)).astype(np.float32)
        inputs, attributes = ["x", "weight", "recurrent"], {"hidden_size": hidden}
    infos = [
        h.make_tensor_value_info(
            name, h.np_dtype_to_tensor_dtype(array.dtype), [None] * array.ndim
        )
        for name, array in feed.items()
    ]
    weights = [weight] if op != "LSTM" else [weight, nh.from_array(recurrent, "recurrent")]
    node = h.make_node(op, inputs, ["y"], "reader", **attributes)
    rank = {"Conv": len(shape), "Gather": 1 + len(shape), "Identity": len(shape), "LSTM": 4}.get(
        op, 2
    )
    output = h.make_tensor_value_info("y", kind, [None] * rank)
    graph = h.make_graph([node], "g", infos, [output], weights)
    opsets = [h.make_opsetid("", store.opset)]
    return h.make_model(graph, opset_imports=opsets, ir_version=8), feed


def with_store(proto, store, name="weight"):
    """Load a model and let the constant of this name hold the store."""
    model = load_model(proto)
    constants = [each for scope in model.all_scopes() for each in scope.constants]
    next(each for each in constants if each.name == name).values = StoreValues(store)
    return model


def run(data, feed, *, optimize=True, optimized_path=None):
    """Return the first output of a model."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    if not optimize:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    if optimized_path is not None:
        options.optimized_model_filepath = str(optimized_path)
    session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    return session.run(None, feed)[0]


def operators(path):
    """Return the operators of a model, those in bodies included."""
    graphs, found = [onnx.load(path).graph], set()
    while graphs:
        for node in graphs.pop().node:
            found.add(node.op_type)
            graphs += [each.g for each in node.attribute if each.HasField("g")]
    return found
