"""Stores of every form, and models that read them."""

import ml_dtypes
import numpy as np
import onnx
import onnxruntime
from onnx import helper as h
from onnx import numpy_helper as nh

from onnxcomp import Context
from onnxcomp.graph import StoreValues, copy_model, load_model, model_bytes, store_of
from onnxcomp.passes import Expand
from onnxcomp.stores import AffineStore, Codebook, store_codes

NUMBERS = np.random.default_rng(0)
TYPES = {"float32": 1, "float16": 10, "float64": 11, "bfloat16": 16}


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


def make_codes(kind, shape):
    """Return random codes of an element type, the least and the greatest among them."""
    dtype = np.dtype(getattr(ml_dtypes, kind, kind))
    if "float" in kind:
        return np.asarray(NUMBERS.standard_normal(shape)).astype(dtype)
    bits = int(kind.lstrip("uint"))
    lowest = 0 if kind.startswith("u") else -(1 << (bits - 1))
    codes = NUMBERS.integers(lowest, lowest + (1 << bits), shape)
    codes.reshape(-1)[:2] = [lowest, lowest + (1 << bits) - 1][: codes.size]
    return codes.astype(dtype)


def make_affine(
    kind="int8",
    shape=(8, 12),
    opset=25,
    form="scale",
    *,
    axis=0,
    block_size=4,
    zero=False,
    dtype="float32",
    scale="float32",
    dequantized=True,
):
    """Return an affine store of random codes; ``form`` is cast, scale, channels or blocks."""
    sizes = {"cast": None, "scale": (), "channels": shape[axis : axis + 1]}.get(form, shape)
    if form == "blocks":
        blocks = -(-shape[axis] // block_size)
        sizes = (*shape[:axis], blocks, *shape[axis + 1 :])
    scales = None if sizes is None else np.asarray(NUMBERS.uniform(1e-4, 1e-3, sizes), scale)
    return AffineStore(
        shape,
        np.dtype(getattr(ml_dtypes, dtype, dtype)),
        make_codes(kind, shape),
        opset,
        scales,
        np.asarray(make_codes(kind, sizes)) if zero else None,
        axis=axis,
        block_size=block_size if form == "blocks" else 0,
        is_dequantized=dequantized,
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
    elif op == "Cast":
        feed, inputs, kind, attributes = {}, ["weight"], 1, {"to": 1}
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
    rank = {"Gather": 1 + len(shape), "LSTM": 4, "MatMul": 2, "Gemm": 2}.get(op, len(shape))
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


def assert_decodes(store, op="Identity", error=0.0):
    """Check a store in a model: values, inverse, bytes, and the way back.

    ``error`` is that of integer kernels, relative to the largest output.
    """
    proto, feed = read_by(op, store)
    plain = run(proto.SerializeToString(), feed)
    model = with_store(proto, store)
    data = model_bytes(model)
    onnx.checker.check_model(data)
    for optimize in (True, False):
        expected = run(proto.SerializeToString(), feed, optimize=optimize)
        result = run(data, feed, optimize=optimize)
        if optimize and error:
            np.testing.assert_allclose(result, expected, rtol=0, atol=error * abs(expected).max())
        else:
            np.testing.assert_array_equal(result, expected)
        assert optimize or plain.dtype == expected.dtype
    again = load_model(data)
    lifted = store_of(next(each for each in again.constants if each.name == "weight"))
    assert lifted is not None
    assert [node.op for node in again.nodes] == [op]
    assert lifted.load().tobytes() == store.load().tobytes()
    assert model_bytes(again) == data
    assert model_bytes(copy_model(again)) == data
    Expand().apply(again, Context())
    expanded = onnx.ModelProto.FromString(model_bytes(again))
    assert expanded.ir_version >= proto.ir_version
    expanded.ir_version = proto.ir_version
    expanded.graph.initializer.sort(key=lambda each: each.name, reverse=True)
    assert expanded == proto
    return data


def gather(store, indices_rank=2, *, axis=0, indices=None):
    """Return a model with one Gather, and its feed."""
    proto, feed = read_by("Gather", store)
    shape = (2, 3)[:indices_rank]
    feed["x"] = np.arange(0, 3 * int(np.prod(shape)), 3).reshape(shape)
    proto.graph.input[0].CopyFrom(
        h.make_tensor_value_info("x", onnx.TensorProto.INT64, [None] * indices_rank)
    )
    kind = TYPES[store.dtype.name]
    output = h.make_tensor_value_info("y", kind, [None] * (indices_rank + 1))
    proto.graph.output[0].CopyFrom(output)
    if axis:
        proto.graph.node[0].attribute.append(h.make_attribute("axis", axis))
    if indices is not None:
        proto.graph.initializer.append(nh.from_array(indices, "x"))
        del proto.graph.input[:]
        feed = {}
    return proto, feed


def assert_decodes_rows(proto, feed, store, *, by_rows):
    """Check a store that a Gather reads: values, bytes, the mark, and the way back."""
    model = with_store(proto, store)
    data = model_bytes(model)
    onnx.checker.check_model(data)
    np.testing.assert_array_equal(run(data, feed), run(proto.SerializeToString(), feed))
    np.testing.assert_array_equal(
        run(data, feed, optimize=False), run(proto.SerializeToString(), feed)
    )
    marks = [
        entry.value
        for node in onnx.ModelProto.FromString(data).graph.node
        for entry in node.metadata_props
    ]
    assert any(mark.endswith(".rows") for mark in marks) == by_rows
    again = load_model(data)
    lifted = [store_of(each) for each in again.constants if each.name == "weight"]
    assert [each.load().tobytes() for each in lifted] == [store.load().tobytes()]
    assert model_bytes(again) == data
    Expand().apply(again, Context())
    expanded = onnx.ModelProto.FromString(model_bytes(again))
    expanded.graph.initializer.sort(key=lambda each: each.name)
    proto.graph.initializer.sort(key=lambda each: each.name)
    expanded.ir_version = proto.ir_version
    assert expanded == proto
