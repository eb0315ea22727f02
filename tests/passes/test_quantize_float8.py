"""Floats of 8 bits: what is rounded to them, what it costs, and what ONNX Runtime makes of it."""

import onnx
import pytest
from quantizing import (
    CONVNET,
    IMAGES,
    apart,
    built,
    feeds_of,
    fused_operators,
    matrix,
    numbers,
    operators,
    quantized,
    run,
    snr,
    weight,
)

from onnxcomp import load_model
from onnxcomp.errors import OptionError
from onnxcomp.graph import copy_model, model_bytes, raise_opset, weights
from onnxcomp.passes import Quantize
from onnxcomp_passes.quantize.forms import FLOAT8
from onnxcomp_passes.quantize.grids import ActivationGrid
from onnxcomp_passes.quantize.inserting import insert
from onnxcomp_passes.quantize.profiles import PROFILES
from onnxcomp_passes.quantize.selecting import full_plan
from onnxcomp_passes.quantize.simulating import simulate

PARTS = {"mode": "static", "keep_float": "0", "ranges": "minmax", "profile": "generic"}
SAME = "Conv <pads = [1, 1, 1, 1]>"
ROWS = feeds_of(12, x=(4, 48))
NETS = {
    "Conv": (
        built(
            f"""(float[N,16,8,8] x) => (float[N,24,8,8] y) {{
                c = {SAME} (x, w, b)  r = Relu(c)  d = {SAME} (r, v)  s = Clip(d, zero, six)
                y = {SAME} (s, u, e) }}""",
            {
                "w": weight(16, 16, 3, 3),
                "b": numbers(16),
                "v": weight(32, 16, 3, 3),
                "zero": 0 * numbers(),
                "six": 0 * numbers() + 6,
                "u": weight(24, 32, 3, 3),
                "e": numbers(24),
            },
        ),
        IMAGES,
    ),
    "Gemm": (
        built(
            """(float[N,48] x) => (float[N,32] y) {
                a = Gemm <transB = 1> (x, w, b)  r = Relu(a)  y = Gemm(r, v, e) }""",
            {"w": weight(64, 48), "b": numbers(64), "v": matrix(64, 32), "e": numbers(32)},
        ),
        ROWS,
    ),
    "MatMul": (
        built(
            """(float[N,L,48] x) => (float[N,L,32] y) {
                a = MatMul(x, w)  b = Add(a, bias)  t = Tanh(b)  y = MatMul(t, v) }""",
            {"w": matrix(48, 64), "bias": numbers(64), "v": matrix(64, 32)},
        ),
        feeds_of(12, x=(2, 6, 48)),
    ),
}


def types(model):
    """Return the element types of a file's initializers, and how many there are of each."""
    proto = onnx.load_from_string(model)
    found = [onnx.TensorProto.DataType.Name(each.data_type) for each in proto.graph.initializer]
    return {name: found.count(name) for name in found}


@pytest.mark.parametrize(("kind", "least"), [("float8e4m3fn", 26), ("float8e5m2", 20)])
@pytest.mark.parametrize("op", NETS)
def test_layers_keep_what_they_give(op, kind, least):
    proto, feeds = NETS[op]
    result, verdicts = quantized(proto, feeds, activation_type=kind, **PARTS)
    count = operators(proto.SerializeToString())[op]
    assert operators(result)["QuantizeLinear"] == count
    assert operators(result)["DequantizeLinear"] == 2 * count
    assert types(result)[kind.upper()] == count
    # Biases stay as they are, and what a layer gives is not rounded unless another one reads it.
    assert "INT32" not in types(result)
    how = f"{kind}, computed with floats of 8 bits; "
    assert all(verdicts[name].reason.startswith(how) for name in ("w", "v"))
    given = run(result, feeds)
    assert snr(run(proto, feeds), given) > least
    assert apart(given, run(result, feeds, optimize=False)) < 0.01


def test_the_opset_that_names_the_type_and_the_checker():
    result, _ = quantized(CONVNET, IMAGES, activation_type="float8e4m3fn", **PARTS)
    proto = onnx.load_from_string(result)
    assert [each.version for each in proto.opset_import] == [21]
    for node in proto.graph.node:
        if node.op_type == "QuantizeLinear":
            # By its zero point ONNX Runtime would take it for an integer.
            (named,) = node.attribute
            assert (named.name, named.i) == ("output_dtype", onnx.TensorProto.FLOAT8E4M3FN)
            assert len(node.input) == 2


@pytest.mark.parametrize("kind", FLOAT8)
def test_trials_of_ranges_round_as_the_result_will(kind):
    model = load_model(CONVNET)
    raise_opset(model, 21)
    chosen = {id(each.tensor) for each in weights(model)}
    plan = full_plan(model, chosen, PROFILES["generic"].computing(kind))
    rounded, tried = copy_model(model), copy_model(model)
    placement = plan.place(rounded)
    grids = [ActivationGrid.between(-2, 3, FLOAT8[kind]) for _ in placement.tensors]
    insert(placement, grids)
    knobs = simulate(plan.place(tried), [3.0] * len(grids), [0] * len(grids), FLOAT8[kind])
    assert apart(run(model_bytes(tried), IMAGES), run(CONVNET, IMAGES)) == 0
    for knob, grid in zip(knobs, grids, strict=True):
        for constant, value in knob.set_to(grid, None):
            constant.values = value
    wanted, found = (run(model_bytes(each), IMAGES) for each in (rounded, tried))
    assert snr(wanted, found) > 50
    assert snr(run(CONVNET, IMAGES), found) < 30


@pytest.mark.parametrize("kind", FLOAT8)
def test_biases_that_onnxruntime_rounds_fit_in_32_bits(kind):
    tensors = {
        "w": weight(16, 16, 3, 3),
        "b": 30 * numbers(16),
        "v": weight(16, 16, 3, 3, seed=1),
    }
    proto = built(
        f"""(float[N,16,8,8] x) => (float[N,16,8,8] y) {{
            c = {SAME} (x, w, b)  r = Relu(c)  y = {SAME} (r, v) }}""",
        tensors,
    )
    # An output that is all but pruned, beside its bias.
    tensors["w"][3] *= 1e-7
    for each in proto.graph.initializer:
        if each.name == "w":
            each.CopyFrom(onnx.numpy_helper.from_array(tensors["w"], "w"))
    result, _ = quantized(proto, IMAGES, activation_type=kind, **PARTS)
    assert snr(run(result, IMAGES, optimize=False), run(result, IMAGES)) > 50
    assert snr(run(proto, IMAGES), run(result, IMAGES)) > 25


@pytest.mark.parametrize(
    ("profile", "shape", "is_computed"),
    [
        ("tensorrt", (16, 16, 3, 3), True),
        ("tensorrt", (32, 8, 3, 3), False),
        ("tensorrt", (16, 16, 7, 7), False),
        ("cuda", (32, 8, 3, 3), True),
        ("generic", (16, 16, 7, 7), True),
    ],
)
def test_convolutions_that_there_is_a_kernel_for(profile, shape, is_computed):
    proto = built(
        f"(float[N,{shape[1]},9,9] x) => (float[N,C,H,W] y) {{ y = Conv(x, w) }}",
        {"w": weight(*shape)},
    )
    feeds = feeds_of(12, x=(2, shape[1], 9, 9))
    options = PARTS | {"profile": profile, "activation_type": "float8e4m3fn"}
    result, _ = quantized(proto, feeds, **options)
    assert operators(result)["QuantizeLinear"] == int(is_computed)


def test_integers_at_the_inputs_and_floats_of_8_bits_inside():
    options = PARTS | {"activation_type": "float8e4m3fn", "io_dtype": "uint8"}
    result, _ = quantized(CONVNET, IMAGES, **options)
    proto = onnx.load_from_string(result)
    for port in (*proto.graph.input, *proto.graph.output):
        assert port.type.tensor_type.elem_type == onnx.TensorProto.UINT8


@pytest.mark.parametrize(
    ("kind", "least", "repaired"), [("float8e4m3fn", 28, 45), ("float8e5m2", 22, 40)]
)
def test_stored_weights(kind, least, repaired, tmp_path):
    result, verdicts = quantized(CONVNET, mode="weights", weight_type=kind)
    assert verdicts["w1"].reason == f"{kind}, stored, and folded when the model is loaded"
    assert verdicts["w1"].bytes_after < verdicts["w1"].bytes_before / 3.3
    assert [each.version for each in onnx.load_from_string(result).opset_import] == [19]
    assert fused_operators(result, tmp_path)["Cast"] == 0
    assert snr(run(CONVNET, IMAGES), run(result, IMAGES)) > least
    with_data, _ = quantized(CONVNET, IMAGES, mode="weights", weight_type=kind)
    assert snr(run(CONVNET, IMAGES), run(with_data, IMAGES)) > repaired


def test_zeros_of_stored_weights_are_left_out():
    tensors = {"w": weight(64, 48) * (numbers(64, 48) > 1)}
    proto = built("(float[N,48] x) => (float[N,64] y) { y = Gemm <transB = 1> (x, w) }", tensors)
    result, _ = quantized(proto, mode="weights", weight_type="float8e4m3fn")
    # A bit for each weight, and a byte for each sixth.
    assert len(result) < 64 * 48 * 0.65
    (stored,) = weights(load_model(result))
    assert ((stored.load() != 0) == (tensors["w"] != 0)).all()


def test_what_is_quantized_already():
    options = PARTS | {"activation_type": "float8e4m3fn"}
    proto, feeds = NETS["MatMul"]
    once, _ = quantized(proto, feeds, **options)
    again = onnx.load_from_string(once)
    with pytest.raises(OptionError, match="'w', 'v' are quantized already"):
        quantized(again, feeds, **options)
    twice, _ = quantized(again, feeds, **options, requantize=True)
    assert operators(twice) == operators(once)
    assert snr(run(proto, feeds), run(twice, feeds)) > 25


def test_a_stranger_with_zero_points():
    w = matrix(48, 64)
    codes, _ = quantized(
        built("(float[N,48] x) => (float[N,64] y) { y = MatMul(x, w) }", {"w": w}),
        ROWS,
        activation_type="float8e4m3fn",
        **PARTS,
    )
    proto = onnx.load_from_string(codes)
    zeros = {"flat": (), "wide": (64,)}
    for name, shape in zeros.items():
        size = int(shape == ()) or shape[0]
        proto.graph.initializer.append(
            onnx.helper.make_tensor(
                name, onnx.TensorProto.FLOAT8E4M3FN, shape, bytes(size), raw=True
            )
        )
    for node in proto.graph.node:
        del node.metadata_props[:]
        if node.op_type == "QuantizeLinear":
            del node.attribute[:]
        if node.op_type in {"QuantizeLinear", "DequantizeLinear"}:
            node.input.append("wide" if node.attribute else "flat")
    onnx.checker.check_model(proto, full_check=True)
    with pytest.raises(OptionError, match="quantized already"):
        quantized(proto, ROWS, mode="weights")
    result, _ = quantized(proto, mode="weights", weight_type="int16", requantize=True)
    assert not operators(result)["QuantizeLinear"]
    original = built("(float[N,48] x) => (float[N,64] y) { y = MatMul(x, w) }", {"w": w})
    assert snr(run(original, ROWS), run(result, ROWS)) > 25


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"profile": "cuda", "activation_type": "float8e5m2", "ranges": "entropy"},
            (
                "ranges = 'entropy' is of codes that lie evenly, not of float8e5m2; give output, "
                "mse, percentile or minmax"
            ),
        ),
        (
            {"mode": "weights", "weight_type": "float8e4m3fn", "block_size": 32},
            ("block_size = 32 needs weight_type int8, int4, uint4 or int2, not float8e4m3fn"),
        ),
    ],
    ids=str,
)
def test_what_is_refused(options, message):
    with pytest.raises(OptionError) as raised:
        Quantize(**options)
    assert str(raised.value) == f"quantize: {message}"


def test_no_profile_takes_floats_of_8_bits_unasked():
    for each in PROFILES.values():
        assert not FLOAT8.keys() & set(each.activations)
        assert each.computing("auto") is each
