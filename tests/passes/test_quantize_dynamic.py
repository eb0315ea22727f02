"""Matrix products whose activations are rounded as they come."""

import numpy as np
import onnx
import pytest
from quantizing import (
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
from onnxcomp.graph import model_bytes
from onnxcomp_passes.quantize.processors import detected_profile
from onnxcomp_passes.quantize.profiles import PROFILES, Profile

# Without VNNI weights have 7 bits: sums of two products must fit into 16.
HAS_VNNI = detected_profile() == "cpu"
LARGEST = PROFILES[detected_profile()].largest_code
ROWS = feeds_of(12, x=(2, 5, 64))
FLAT = feeds_of(12, x=(4, 64))
STANDARD = {"DynamicQuantizeLinear", "MatMulInteger", "Cast", "Mul"}


def model(body, signature="(float[N,L,64] x) => (float[N,L,M] y)", **tensors):
    return built(f"{signature} {{ {body} }}", tensors)


def test_standard_operators_become_one(tmp_path):
    proto = model(
        "a = MatMul(x, w)  t = Tanh(a)  y = MatMul(t, v)", w=matrix(64, 48), v=matrix(48, 64)
    )
    result, verdicts = quantized(proto, mode="dynamic")
    assert set(operators(result)) >= STANDARD
    assert fused_operators(result, tmp_path) == {"DynamicQuantizeMatMul": 2, "Tanh": 1}
    for each in verdicts.values():
        assert each.reason == "int8, computed with integers, activations rounded as they come"
    assert snr(run(proto, ROWS), run(result, ROWS)) > (35 if HAS_VNNI else 33)
    assert apart(run(result, ROWS), run(result, ROWS, optimize=False)) < 1e-5


@pytest.mark.parametrize("names", [("a", "b", "c"), ("c", "b", "a")])
def test_products_of_one_tensor_round_it_once(tmp_path, names):
    # The order of the weights in the file is not that of the products.
    tensors = {name: matrix(64, 32, seed) for seed, name in enumerate(names)}
    body = """t = Tanh(x)  q = MatMul(t, a)  k = MatMul(t, b)  v = MatMul(t, c)
        s = Mul(q, k)  y = Add(s, v)"""
    result, _ = quantized(model(body, **tensors), ROWS, mode="dynamic")
    assert operators(result)["DynamicQuantizeLinear"] == 1
    assert operators(result)["MatMulInteger"] == 3
    assert fused_operators(result, tmp_path)["MatMulIntegerToFloat"] == 3
    assert snr(run(model(body, **tensors), ROWS), run(result, ROWS)) > 30


@pytest.mark.parametrize("transposed", [0, 1])
@pytest.mark.parametrize("shape", [None, (48,), (1,), (4, 48), (4, 1)])
def test_a_gemm_where_a_profile_has_it(monkeypatch, transposed, shape):
    own = Profile(frozenset(), largest_code=LARGEST, dynamic=frozenset({"Gemm"}))
    monkeypatch.setitem(PROFILES, "generic", own)
    w = weight(48, 64) if transposed else matrix(64, 48)
    tensors = {"w": w} if shape is None else {"w": w, "b": numbers(*shape)}
    body = f"y = Gemm <transB = {transposed}> (x, w{'' if shape is None else ', b'})"
    proto = model(body, "(float[4,64] x) => (float[4,48] y)", **tensors)
    result, _ = quantized(proto, FLAT, mode="dynamic", profile="generic")
    counts = operators(result)
    assert (counts["MatMulInteger"], counts["Gemm"]) == (1, 0)
    assert snr(run(proto, FLAT), run(result, FLAT)) > (40 if HAS_VNNI else 36)
    assert apart(run(result, FLAT), run(result, FLAT, optimize=False)) < 1e-5


@pytest.mark.parametrize(
    "body",
    [
        "y = Gemm <beta = 0.5> (x, w, b)",
        "y = Gemm <alpha = 0.5> (x, w)",
        "y = MatMul(wt, xt)",
        "a = MatMul(x, w)  c = Transpose(w)  y = MatMul(a, c)",
    ],
)
def test_what_is_not_written_so_is_stored(tmp_path, body):
    tensors = {"w": matrix(64, 48), "wt": weight(48, 64), "b": numbers(48)}
    named = {
        name: value for name, value in tensors.items() if f"{name}," in body or f"{name})" in body
    }
    body = f"xt = Transpose(x)  {body}" if "xt" in body else body
    proto = model(body, "(float[N,64] x) => (float[A,B] y)", **named)
    result, verdicts = quantized(proto, FLAT, mode="dynamic")
    weights = [each for each in verdicts.values() if each.verdict == "changed"]
    assert weights
    assert all("folded when the model is loaded" in each.reason for each in weights)
    assert not operators(result)["MatMulInteger"]
    assert not fused_operators(result, tmp_path)["DequantizeLinear"]


@pytest.mark.parametrize("mode", ["static", "dynamic"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_weight_that_is_not_finite_stays_float(mode, value):
    w = matrix(64, 48)
    w[5, 7] = value
    body = "a = Gemm(x, w, b)  t = Tanh(a)  y = MatMul(t, v)"
    tensors = {"w": w, "b": numbers(48), "v": matrix(48, 64)}
    proto = model(body, "(float[N,64] x) => (float[N,64] y)", **tensors)
    _, verdicts = quantized(proto, FLAT, mode=mode)
    assert (verdicts["w"].verdict, verdicts["w"].reason) == ("skipped", "holds NaN or infinity")
    assert verdicts["v"].verdict == "changed"


@pytest.mark.parametrize(
    ("layer", "options"),
    [
        ("Gemm(x, w, b)", {"mode": "static", "profile": "generic"}),
        ("MatMul(x, w)", {"mode": "static", "profile": "generic"}),
        ("MatMul(x, w)", {"mode": "dynamic"}),
    ],
    ids=str,
)
@pytest.mark.parametrize("shape", [(3, 3), (1, 1024)])
def test_a_weight_that_codes_make_no_smaller_stays_float(layer, options, shape):
    inputs, outputs = shape
    tensors = {"w": matrix(*shape), "b": numbers(outputs), "v": matrix(outputs, 60)}
    body = f"a = {layer}  c = Add(a, b)  t = Tanh(c)  y = MatMul(t, v)"
    proto = model(body, f"(float[N,{inputs}] x) => (float[N,60] y)", **tensors)
    feeds = feeds_of(8, x=(3, inputs))
    result, verdicts = quantized(proto, feeds, min_elements=1, **options)
    assert verdicts["w"].reason.startswith("would not be smaller")
    assert snr(run(proto, feeds), run(result, feeds)) > 30


def test_nothing_to_do_changes_nothing():
    proto = model("y = Tanh(x)")
    result, verdicts = quantized(proto, mode="dynamic")
    assert not verdicts
    assert result == model_bytes(load_model(proto))


def test_a_product_behind_a_relu_that_static_rewrote():
    # Both name something after the Relu's output.
    body = "a = Gemm <transB = 1> (x, w)  r = Relu(a)  y = MatMul(r, v)"
    tensors = {"w": weight(48, 64), "v": matrix(48, 64)}
    proto = model(body, "(float[4,64] x) => (float[4,64] y)", **tensors)
    static, _ = quantized(proto, FLAT, mode="static", exclude=("v",), keep_float="0")
    assert operators(static)["Max"] == 1
    both, verdicts = quantized(onnx.load_from_string(static), FLAT, mode="dynamic", include=("v",))
    assert verdicts["v"].verdict == "changed"
    assert operators(both)["MatMulInteger"] == 1
    assert snr(run(proto, FLAT), run(both, FLAT)) > 25
