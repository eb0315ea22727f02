"""The graphs that come out, and what ONNX Runtime's optimiser makes of them."""

import numpy as np
import onnx
import pytest
from quantizing import (
    apart,
    built,
    feeds_of,
    fused,
    fused_operators,
    matrix,
    numbers,
    operators,
    quantized,
    run,
    snr,
    weight,
)

from onnxcomp_passes.quantize import static

SAME = "Conv <pads = [1, 1, 1, 1]>"
IMAGES = feeds_of(12, x=(2, 16, 8, 8))
ROWS = feeds_of(12, x=(2, 5, 64))
FLAT = feeds_of(12, x=(4, 64))
CONVNET = built(
    f"""(float[N,16,8,8] x) => (float[N,10] y) {{
        c = {SAME}(x, w1, b1)  r = Relu(c)  d = {SAME}(r, w2, b2)  a = Add(d, r)  s = Relu(a)
        e = {SAME}(s, w3, b3)  t = Relu(e)
        p = GlobalAveragePool(t)  f = Flatten(p)  y = Gemm <transB = 1> (f, head, b4) }}""",
    {
        **{
            f"w{place}": weight(32, 16 if place == 1 else 32, 3, 3, seed=place) for place in (1, 2)
        },
        "w3": weight(64, 32, 3, 3),
        **{f"b{place}": numbers(32, seed=place) for place in (1, 2)},
        "b3": numbers(64),
        "head": weight(10, 64),
        "b4": numbers(10),
    },
)
UNNAMED = {"QuantizeLinear", "DequantizeLinear"}


def dense(op, activation):
    body = f"a = {op}  t = {activation}  y = MatMul(t, v)"
    return built(
        f"(float[N,L,64] x) => (float[N,L,64] y) {{ {body} }}",
        {name: matrix(64, 64, place) for place, name in enumerate("wv")} | {"b": numbers(64)},
    )


def initializers(model):
    graph = onnx.load_from_string(model).graph
    return {each.name: onnx.numpy_helper.to_array(each) for each in graph.initializer}


def decoded_weights(graph):
    """Return what the optimised graph decodes at every run."""
    stored = {each.name for each in graph.initializer}
    return [n for n in graph.node if n.op_type == "DequantizeLinear" and n.input[0] in stored]


def test_convolutions_and_gemms_are_computed_with_integers(tmp_path):
    result, verdicts = quantized(CONVNET, IMAGES, mode="static", min_elements=100)
    graph = fused(result, tmp_path).graph
    counts = fused_operators(result, tmp_path)
    assert counts["QLinearConv"] == 3
    assert counts["QLinearAdd"] == 1
    assert counts["Conv"] == counts["FusedConv"] == counts["Relu"] == 0
    assert not decoded_weights(graph)
    for name in ("w1", "w2", "w3"):
        assert verdicts[name].reason.startswith("int8, computed with integers; ")
    assert verdicts["head"].reason.startswith("int8, stored, and folded when the model is loaded")
    assert snr(run(CONVNET, IMAGES), run(result, IMAGES)) > 30


@pytest.mark.parametrize("bias", ["", ", b"])
@pytest.mark.parametrize("transposed", [0, 1])
def test_a_gemm_becomes_one(tmp_path, bias, transposed):
    w = weight(48, 64) if transposed else matrix(64, 48)
    tensors = {"w": w, "b": numbers(48)} if bias else {"w": w}
    body = f"y = Gemm <transB = {transposed}> (x, w{bias})"
    proto = built(f"(float[N,64] x) => (float[N,48] y) {{ {body} }}", tensors)
    result, _ = quantized(proto, FLAT, mode="static", ranges="mse")
    assert fused_operators(result, tmp_path) == {"QuantizeLinear": 1, "QGemm": 1}


@pytest.mark.parametrize("activation", ["Tanh(a)", "Add(a, b)", "Sigmoid(a)"])
def test_a_matrix_product_becomes_one(tmp_path, activation):
    proto = dense("MatMul(x, w)", activation)
    result, _ = quantized(proto, ROWS, mode="static")
    counts = fused_operators(result, tmp_path)
    assert counts["MatMulIntegerToFloat"] == 2
    assert counts["MatMul"] == counts["DequantizeLinear"] == 0


def test_a_matrix_product_with_a_rectifier_becomes_one(tmp_path):
    # Nothing else may stand between the Relu and the rounding.
    result, _ = quantized(dense("MatMul(x, w)", "Relu(a)"), ROWS, mode="static", ranges="mse")
    counts = fused_operators(result, tmp_path)
    assert counts["MatMul"] == counts["DequantizeLinear"] == 0


def test_scales_of_activations_are_numbers_and_biases_integers():
    result, _ = quantized(CONVNET, IMAGES, mode="static", min_elements=100)
    graph, values = onnx.load_from_string(result).graph, initializers(result)
    made = {name: node for node in graph.node for name in node.output}
    for node in graph.node:
        if node.op_type == "QuantizeLinear":
            assert [values[name].shape for name in node.input[1:]] == [(), ()]
            assert values[node.input[2]].dtype == np.uint8
        if node.op_type == "Conv":
            activation, weights, bias = (made[name] for name in node.input)
            assert values[bias.input[0]].dtype == np.int32
            steps = values[weights.input[1]] * values[activation.input[1]]
            np.testing.assert_allclose(values[bias.input[1]], steps, rtol=1e-6)
            assert values[weights.input[0]].dtype == np.int8


@pytest.mark.parametrize(
    ("opset", "options", "expected"),
    [
        (11, {"mode": "static"}, 13),
        (9, {"mode": "dynamic"}, 11),
        (9, {"mode": "weights"}, 9),
        (9, {"mode": "weights", "weight_type": "int4"}, 9),
        (6, {"mode": "weights", "weight_type": "float16"}, 7),
        (17, {"mode": "weights", "block_size": 32, "exclude": ("other",)}, 21),
        (17, {"mode": "static"}, 17),
        (17, {"mode": "weights", "weight_type": "int4"}, 17),
        (17, {"mode": "weights", "weight_type": "int4", "block_size": 32}, 21),
        (17, {"mode": "weights", "weight_type": "uint4", "block_size": 32}, 21),
        (13, {"mode": "weights", "weight_type": "int2", "block_size": 16}, 25),
        (22, {"mode": "weights", "block_size": 16}, 22),
    ],
    ids=str,
)
def test_the_opset_is_raised_as_needed(opset, options, expected):
    body = "a = MatMul(x, w)  y = Tanh(a)"
    signature = "(float[N,L,64] x) => (float[N,L,48] y)"
    proto = built(f"{signature} {{ {body} }}", {"w": matrix(64, 48)}, opset=opset, ir_version=7)
    proto.ir_version = 7 if opset < 20 else 10
    result, verdicts = quantized(proto, ROWS, **options)
    assert verdicts["w"].verdict == "changed"
    assert onnx.load_from_string(result).opset_import[0].version == expected


def test_the_opset_is_not_raised_for_blocks_that_there_are_not():
    proto = built(
        "(float[N,16,8,8] x) => (float[N,32,8,8] y) { y = Conv(x, w) }",
        {"w": weight(32, 16, 1, 1)},
    )
    result, verdicts = quantized(proto, mode="weights", block_size=16)
    assert verdicts["w"].verdict == "changed"
    assert onnx.load_from_string(result).opset_import[0].version == 17


@pytest.mark.parametrize(
    ("weight_type", "outputs", "is_in_blocks"),
    [
        ("int8", 48, True),
        ("int4", 47, True),
        ("uint4", 48, True),
        ("uint4", 47, True),
        ("int2", 48, True),
        ("int2", 46, False),
    ],
)
@pytest.mark.parametrize("inputs", [64, 40])
def test_blocks_are_multiplied_as_they_are(tmp_path, weight_type, outputs, is_in_blocks, inputs):
    proto = built(
        f"(float[N,{inputs}] x) => (float[N,{outputs}] y) {{ y = MatMul(x, w) }}",
        {"w": matrix(inputs, outputs)},
    )
    feeds = feeds_of(8, x=(3, inputs))
    options = {"mode": "weights", "weight_type": weight_type, "block_size": 32}
    result, _ = quantized(proto, feeds, **options)
    expected = {"MatMulNBits": 1} if is_in_blocks else {"MatMul": 1}
    assert fused_operators(result, tmp_path) == expected
    assert apart(run(result, feeds), run(result, feeds, optimize=False)) < 0.02


@pytest.mark.parametrize("dtype", [np.float64, np.float16])
def test_blocks_of_other_types_are_folded(tmp_path, dtype):
    name = {np.float64: "double", np.float16: "float16"}[dtype]
    proto = built(
        f"({name}[N,64] x) => ({name}[N,48] y) {{ y = MatMul(x, w) }}",
        {"w": matrix(64, 48).astype(dtype)},
    )
    result, verdicts = quantized(proto, mode="weights", weight_type="int4", block_size=32)
    assert verdicts["w"].reason == "int4, stored, and folded when the model is loaded"
    assert not set(fused_operators(result, tmp_path)) & UNNAMED


@pytest.mark.parametrize("mode", ["static", "dynamic"])
@pytest.mark.parametrize("factor", [0, 1e-13])
@pytest.mark.parametrize("kind", ["conv", "gemm"])
def test_a_channel_without_weights_keeps_its_bias(mode, factor, kind):
    if kind == "conv":
        w = weight(32, 16, 3, 3)
        w[3:5] *= np.float32(factor)
        body, feeds = f"c = {SAME}(x, w, b)  r = Relu(c)  d = {SAME}(r, v)  y = Tanh(d)", IMAGES
        signature = "(float[N,16,8,8] x) => (float[N,C,H,W] y)"
        tensors = {"w": w, "b": 1 + np.abs(numbers(32)), "v": weight(16, 32, 3, 3)}
    else:
        w = matrix(64, 48)
        w[:, 3:5] *= np.float32(factor)
        body, feeds = "y = Gemm(x, w, b)", FLAT
        signature = "(float[N,64] x) => (float[N,48] y)"
        tensors = {"w": w, "b": 3 + numbers(48)}
    proto = built(f"{signature} {{ {body} }}", tensors)
    result, _ = quantized(proto, feeds, mode=mode)
    wanted, found = run(proto, feeds), run(result, feeds)
    assert snr(wanted, found) > 32
    if kind == "gemm":
        missed = np.abs(wanted[0]["y"] - found[0]["y"])[:, 3:5].max()
        assert missed < 1e-5 * np.abs(wanted[0]["y"]).max()


TRAP = f"""c = {SAME}(x, w)  r = Relu(c)  d = Conv <group = 16, pads = [1, 1, 1, 1]> (r, k)
    s = Relu(d)  e = {SAME}(s, v)  y = Tanh(e)"""


@pytest.mark.parametrize("is_shielded", [True, False])
def test_weights_that_stay_float_are_shielded_from_the_optimiser(monkeypatch, is_shielded):
    k = weight(16, 1, 3, 3) * np.geomspace(0.02, 20, 16, dtype=np.float32)[:, None, None, None]
    v = weight(16, 16, 3, 3) / np.geomspace(0.02, 20, 16, dtype=np.float32)[:, None, None]
    tensors = {"w": weight(16, 16, 3, 3, seed=1), "k": k, "v": v}
    proto = built(f"(float[N,16,8,8] x) => (float[N,16,8,8] y) {{ {TRAP} }}", tensors)
    if not is_shielded:
        monkeypatch.setattr(static, "shield", lambda *_: None)
    options = {"mode": "static", "ranges": "minmax", "exclude": ("k",), "keep_float": "0"}
    result, _ = quantized(proto, IMAGES, **options)
    difference = apart(run(result, IMAGES), run(result, IMAGES, optimize=False))
    assert (difference < 0.01) if is_shielded else (difference > 0.05)
    assert operators(result)["Clip"] == int(is_shielded)


@pytest.mark.parametrize("addend", ["b", "MatMul"])
def test_a_plain_matrix_product_with_an_addition_becomes_one(tmp_path, addend):
    other = "o = MatMul(x, v)  " if addend == "MatMul" else "o = Identity(b)  "
    proto = built(
        f"(float[N,64] x) => (float[N,64] y) {{ {other} a = MatMul(x, w)  y = Add(a, o) }}",
        {"w": matrix(64, 64), "v": matrix(64, 64, 1), "b": numbers(64)},
    )
    result, _ = quantized(proto, FLAT, mode="static")
    assert not fused_operators(result, tmp_path)["DequantizeLinear"]


@pytest.mark.parametrize("layer", ["MatMul(x, w)", "Gemm(x, w, b)"])
@pytest.mark.parametrize("then", ["Tanh(t)", "MatMul(t, v)", "Identity(t)"])
def test_a_rectifier_that_floats_read(tmp_path, layer, then):
    # On the grid, so that no mean is corrected: an addition before the Relu makes it another case.
    w = np.clip(np.rint(150 * matrix(64, 64)), -64, 64)
    w[0] = 64
    feeds, shape = (ROWS, "N,L") if layer.startswith("MatMul") else (FLAT, "N")
    proto = built(
        f"(float[{shape},64] x) => (float[{shape},64] y) "
        f"{{ a = {layer}  t = Relu(a)  y = {then} }}",
        {"w": w / np.float32(1024), "v": matrix(64, 64, 1), "b": numbers(64)},
    )
    options = {"mode": "static", "ranges": "minmax", "exclude": ("v",), "profile": "avx2"}
    result, _ = quantized(proto, feeds, **options)
    assert not fused_operators(result, tmp_path)["DequantizeLinear"]
    assert apart(run(result, feeds), run(result, feeds, optimize=False)) < 0.01
