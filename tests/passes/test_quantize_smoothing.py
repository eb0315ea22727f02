"""The spread of an activation's channels moves into the weights that multiply it."""

import numpy as np
import onnx
import pytest
from quantizing import built, feeds_of, matrix, numbers, quantized, run, snr, weight

from onnxcomp import load_model
from onnxcomp.graph import model_bytes
from onnxcomp.statistics import Range, layers
from onnxcomp_passes.quantize.placement import Rounded
from onnxcomp_passes.quantize.smoothing import factors, smooth, smoothed_ends, smooths

SPREAD = np.where(np.arange(64) % 16 == 3, 60, 1).astype(np.float32)
ROWS = feeds_of(20, x=(2, 5, 64))
UNSEEN = feeds_of(8, seed=9, x=(2, 5, 64))
ATTENTION = built(
    """(float[N,L,64] x) => (float[N,L,64] y) {
        t = Mul(x, spread)  q = MatMul(t, wq)  k = MatMul(t, wk)  v = MatMul(t, wv)
        a = Sigmoid(q)  b = Tanh(k)  c = Mul(a, b)  y = Mul(c, v) }""",
    {"spread": SPREAD} | {f"w{name}": matrix(64, 64, seed) / 8 for seed, name in enumerate("qkv")},
)


def moments(ends=((-3, 5), (-70, 20))):
    seen = Range()
    seen.add(np.array(ends, np.float32).T)
    return seen


def seen_often(channels, times=512):
    seen = Range()
    seen.add(np.ones((times, channels), np.float32))
    return seen


def rounded_of(model, layer):
    return Rounded(layer.uses[0].tensors[0], model, layer.weight.dtype)


@pytest.mark.parametrize(
    ("body", "w"),
    [
        ("y = MatMul(x, w)", matrix(64, 48)),
        ("y = Gemm(x, w, b)", matrix(64, 48)),
        ("y = Gemm <transB = 1> (x, w, b)", weight(48, 64)),
        ("y = Gemm <alpha = 0.5, beta = 2.0, transB = 1> (x, w, b)", weight(48, 64)),
    ],
)
def test_the_model_gives_the_same(body, w):
    tensors = {"w": w, "b": numbers(48)} if ", b" in body else {"w": w}
    proto = built(f"(float[N,64] x) => (float[N,48] y) {{ {body} }}", tensors)
    model = load_model(proto)
    (layer,) = [each for each in layers(model) if each.name == "w"]
    rounded = rounded_of(model, layer)
    assert smooths(rounded, [layer], seen_often(64))
    assert not smooths(rounded, [layer], seen_often(64, times=8))
    smooth(rounded, [layer], np.geomspace(0.01, 100, 64, dtype=np.float32))
    result = model_bytes(model)
    onnx.checker.check_model(result, full_check=True)
    feeds = feeds_of(4, x=(6, 64))
    for one, other in zip(run(proto, feeds), run(result, feeds), strict=True):
        np.testing.assert_allclose(other["y"], one["y"], rtol=1e-5, atol=1e-5)
    (changed,) = [each for each in layers(load_model(result)) if each.name == "w"]
    assert not np.allclose(changed.weight.load(), w)


@pytest.mark.parametrize(
    "body",
    [
        "xt = Transpose <perm = [1, 0]> (x)  y = MatMul(w, xt)",
        "xt = Transpose <perm = [1, 0]> (x)  y = Gemm <transA = 1> (xt, v)",
        "a = MatMul(x, s)  y = MatMul(a, s)",
    ],
)
def test_what_is_not_smoothed(body):
    every = {"w": weight(48, 64), "v": matrix(64, 48), "s": matrix(64, 64)}
    tensors = {
        name: value for name, value in every.items() if f"{name})" in body.replace(",", ")")
    }
    model = load_model(built(f"(float[N,64] x) => (float[A,B] y) {{ {body} }}", tensors))
    (layer,) = layers(model)
    assert not smooths(rounded_of(model, layer), [layer], seen_often(64))


def test_what_integers_gave_is_not_smoothed():
    model = load_model(ATTENTION)
    found = [each for each in layers(model) if each.name == "wq"]
    rounded = rounded_of(model, found[0])
    rounded.is_given = True
    assert not smooths(rounded, found, seen_often(64))


def test_factors_make_channels_alike():
    model = load_model(ATTENTION)
    readers = [each for each in layers(model) if each.uses]
    seen = Range()
    for feed in ROWS:
        seen.add(feed["x"] * SPREAD)
    found = list(factors(seen, readers))
    spreads = [1.0]
    for each in found:
        assert each.shape == (64,)
        assert np.exp(np.log(each).mean()) == pytest.approx(1, rel=1e-4)
        divided = seen.channels / each
        spreads.append(divided.max() / divided.min() / (seen.channels.max() / seen.channels.min()))
    assert spreads == sorted(spreads, reverse=True)
    assert spreads[-1] < 0.1


def test_ends_of_what_was_divided():
    low, high = smoothed_ends(moments(), np.array([2, 10], np.float32))
    assert (low, high) == (-7, 2.5)


def test_nothing_is_divided_where_all_is_zero():
    model = load_model(ATTENTION)
    readers = [each for each in layers(model) if each.uses]
    seen = Range()
    seen.add(np.zeros((3, 64), np.float32))
    assert not list(factors(seen, readers))


def test_outlying_channels_cost_less_than_with_any_range():
    original = run(ATTENTION, UNSEEN)
    ratios = {}
    for ranges in ("output", "mse", "minmax"):
        result, verdicts = quantized(ATTENTION, ROWS, mode="static", ranges=ranges, keep_float="0")
        assert all("integers" in verdicts[name].reason for name in ("wq", "wk", "wv"))
        ratios[ranges] = snr(original, run(result, UNSEEN))
    assert ratios["output"] > max(ratios["mse"], ratios["minmax"]) + 3


def test_layers_that_share_an_activation_share_the_division():
    result, _ = quantized(ATTENTION, ROWS, mode="static", keep_float="0")
    nodes = onnx.load_from_string(result).graph.node
    (division,) = [node for node in nodes if node.output[0].endswith(".smoothed")]
    assert division.op_type == "Mul"
    assert division.input[0] == "t"
    (quantizer,) = [node for node in nodes if node.op_type == "QuantizeLinear"]
    assert quantizer.input[0] == division.output[0]
    read = [node.input[0] for node in nodes if node.op_type == "MatMul"]
    assert len(set(read)) == 1
