"""Affine stores in models: what ONNX Runtime makes of them, and what the next pass sees."""

from dataclasses import replace

import numpy as np
import onnx
import pytest
from building_blocks import (
    assert_decodes,
    make_affine,
    operators,
    read_by,
    run,
    with_store,
)
from onnx import helper as h
from onnx import numpy_helper as nh

from onnxcomp.graph import (
    StoreValues,
    load_model,
    model_bytes,
    raise_opset,
    save_model,
    store_of,
    weights,
)
from onnxcomp.report import inspect_model
from onnxcomp.stores import AffineStore
from onnxcomp_passes.quantize.processors import detected_profile

HAS_VNNI = detected_profile() == "cpu"


@pytest.mark.parametrize(
    ("op", "shape", "axis"),
    [
        ("MatMul", (16, 8), 1),
        ("Gemm", (16, 8), 1),
        ("Conv", (8, 4, 3, 3), 0),
        ("LSTM", (1, 16, 8), 1),
    ],
)
@pytest.mark.parametrize("kind", ["int8", "int4", "float8_e4m3fn", "float16"])
@pytest.mark.parametrize("form", ["cast", "scale", "channels"])
def test_folded_at_load(tmp_path, op, shape, axis, kind, form):  # noqa: PLR0917
    store = make_affine(kind, shape, 21, form, axis=axis, dequantized=False)
    proto, feed = read_by(op, store)
    data = assert_decodes(store, op)
    run(data, feed, optimized_path=tmp_path / "optimized.onnx")
    run(proto.SerializeToString(), feed, optimized_path=tmp_path / "plain.onnx")
    assert operators(tmp_path / "optimized.onnx") == operators(tmp_path / "plain.onnx")


@pytest.mark.parametrize(
    ("op", "shape", "form", "axis"),
    [
        ("MatMul", (64, 8), "scale", 0),
        ("MatMul", (64, 8), "channels", 1),
        ("MatMul", (64, 8), "blocks", 0),
        ("Gemm", (64, 8), "channels", 1),
        ("Conv", (8, 4, 3, 3), "channels", 0),
        ("LSTM", (1, 16, 8), "channels", 1),
    ],
)
@pytest.mark.parametrize("kind", ["int8", "int4", "uint4"])
@pytest.mark.parametrize("zero", [False, True])
def test_dequantized_for_every_operator(tmp_path, op, shape, form, axis, kind, zero):  # noqa: PLR0917
    store = make_affine(kind, shape, 21, form, axis=axis, block_size=16, zero=zero)
    # MatMulNBits may round what it multiplies, by what the processor has.
    data = assert_decodes(store, op, error=0.02 if HAS_VNNI else 0.03)
    _, feed = read_by(op, store)
    run(data, feed, optimized_path=tmp_path / "optimized.onnx")
    is_fused = "DequantizeLinear" not in operators(tmp_path / "optimized.onnx")
    assert is_fused == (op in {"MatMul", "Gemm"})


def quantized_layer(op="Gemm"):
    """Return a model with int8 activations around one layer, and its weight's and bias's store."""
    shape = (8, 16) if op == "Gemm" else (8, 4, 3, 3)
    weight = make_affine("int8", shape, 21, "channels")
    # Processors without VNNI add two products of 8 bits up in 16, which larger ones overflow.
    if not HAS_VNNI:
        weight = replace(weight, codes=weight.codes // 2)
    if op == "Gemm":
        # Without a zero point ONNX Runtime has no integer kernel for it.
        weight = replace(weight, zero_point=np.zeros(8, np.int8))
    codes = np.arange(-4, 4, dtype=np.int32) * 1000
    bias = AffineStore((8,), weight.dtype, codes, 21, weight.scale * np.float32(0.02))
    nodes = [
        h.make_node("QuantizeLinear", ["x", "s", "z"], ["q"]),
        h.make_node("DequantizeLinear", ["q", "s", "z"], ["d"]),
        h.make_node(op, ["d", "weight", "bias"], ["r"], **({"transB": 1} if op == "Gemm" else {})),
        h.make_node("QuantizeLinear", ["r", "t", "z"], ["p"]),
        h.make_node("DequantizeLinear", ["p", "t", "z"], ["y"]),
    ]
    size = (3, 16) if op == "Gemm" else (1, 4, 6, 6)
    tensors = [
        nh.from_array(weight.load(), "weight"),
        nh.from_array(bias.load(), "bias"),
        nh.from_array(np.array(0.02, np.float32), "s"),
        nh.from_array(np.array(0.001, np.float32), "t"),
        nh.from_array(np.array(128, np.uint8), "z"),
    ]
    ports = [h.make_tensor_value_info(name, 1, [None] * len(size)) for name in "xy"]
    graph = h.make_graph(nodes, "g", ports[:1], ports[1:], tensors)
    proto = h.make_model(graph, opset_imports=[h.make_opsetid("", 21)], ir_version=10)
    feed = {"x": np.random.default_rng(1).uniform(-2, 2, size).astype(np.float32)}
    return proto, feed, weight, bias


@pytest.mark.parametrize(("op", "kernel"), [("Gemm", "QGemm"), ("Conv", "QLinearConv")])
def test_integer_kernels(tmp_path, op, kernel):
    proto, feed, weight, bias = quantized_layer(op)
    model = with_store(proto, weight)
    constants = {each.name: each for each in model.constants}
    constants["bias"].values = StoreValues(bias)
    data = model_bytes(model)
    onnx.checker.check_model(data)
    expected = run(proto.SerializeToString(), feed, optimize=False)
    np.testing.assert_array_equal(run(data, feed, optimize=False), expected)
    result = run(data, feed, optimized_path=tmp_path / "optimized.onnx")
    np.testing.assert_allclose(result, expected, rtol=0, atol=0.0011)
    assert kernel in operators(tmp_path / "optimized.onnx")
    again = load_model(data)
    assert model_bytes(again) == data
    found = {each.name: each for each in weights(again)}
    assert found["weight"].op_types == (op,)
    assert found["weight"].unsuitable is None
    assert found["weight"].output_axis == 0
    assert found["bias"].unsuitable == "is a bias"
    assert found["bias"].tensor.nbytes == bias.nbytes
    records = {each.name: each for each in inspect_model(again).weights}
    assert (records["weight"].store, records["weight"].dtype) == ("affine", "float32")
    assert records["weight"].bytes == weight.nbytes


@pytest.mark.parametrize("place", ["branch", "function"])
@pytest.mark.parametrize(("kind", "version"), [("int4", 10), ("int2", 13), ("float8_e5m2", 9)])
def test_wherever_it_is(place, kind, version):
    store = make_affine(kind, (12, 8), form="channels", dequantized=False)
    proto, feed = read_by("MatMul", store)
    weight, node = proto.graph.initializer[0], proto.graph.node[0]
    del proto.graph.initializer[:], proto.graph.node[:]
    if place == "branch":
        output = h.make_tensor_value_info("y", 1, [None] * 2)
        branch = h.make_graph([node], "b", [], [output], [weight])
        made = h.make_node("If", ["c"], ["z"], then_branch=branch, else_branch=branch)
        proto.graph.input.append(h.make_tensor_value_info("c", onnx.TensorProto.BOOL, []))
        proto.graph.output[0].name = "z"
        feed["c"] = np.ones((), bool)
    else:
        constant = h.make_node("Constant", [], ["weight"], value=weight)
        # Of an opset of its own.
        opsets = [h.make_opsetid("", 25)]
        proto.functions.append(h.make_function("f", "F", ["x"], ["y"], [constant, node], opsets))
        proto.opset_import[0].version = 17
        proto.opset_import.append(h.make_opsetid("f", 1))
        made = h.make_node("F", ["x"], ["y"], domain="f")
    proto.graph.node.append(made)
    data = model_bytes(with_store(proto, store))
    assert onnx.ModelProto.FromString(data).ir_version == version
    again = load_model(data)
    stores = [store_of(each) for scope in again.all_scopes() for each in scope.constants]
    assert store.load().tobytes() in {each.load().tobytes() for each in stores if each}
    assert model_bytes(again) == data
    if place == "branch":
        np.testing.assert_array_equal(run(data, feed), run(proto.SerializeToString(), feed))


def test_raised_opset():
    store = make_affine("int8", (16, 8), 13, "channels", axis=1)
    proto, feed = read_by("MatMul", store)
    model = with_store(proto, store)
    raise_opset(model, 21)
    (constant,) = model.constants
    assert store_of(constant).opset == 21
    data = model_bytes(model)
    assert model_bytes(load_model(data)) == data
    expected = run(proto.SerializeToString(), feed, optimize=False)
    np.testing.assert_array_equal(run(data, feed, optimize=False), expected)


def test_codes_stay_in_the_data_file(tmp_path):
    store = make_affine("int8", (64, 64), 17, "channels")
    proto, _ = read_by("MatMul", store)
    onnx.save(proto, tmp_path / "plain.onnx", save_as_external_data=True, size_threshold=0)
    model = load_model(tmp_path / "plain.onnx")
    model.constants[0].values = StoreValues(store)
    save_model(model, tmp_path / "stored.onnx")
    again = load_model(tmp_path / "stored.onnx")
    (constant,) = again.constants
    lifted = store_of(constant)
    assert lifted.load().tobytes() == store.load().tobytes()
    owner = lifted.codes
    while isinstance(owner.base, np.ndarray):
        owner = owner.base
    assert isinstance(owner, np.memmap)
    saved = sorted(tmp_path.glob("stored*"))
    (tmp_path / "again").mkdir()
    save_model(again, tmp_path / "again" / "stored.onnx")
    assert [(tmp_path / "again" / path.name).read_bytes() for path in saved] == [
        path.read_bytes() for path in saved
    ]
