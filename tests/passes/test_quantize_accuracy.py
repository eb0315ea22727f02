"""What repairs of weights gain, and which layers stay float for the sake of accuracy."""

import re

import numpy as np
import pytest
from quantizing import (
    built,
    context_of,
    feeds_of,
    matrix,
    numbers,
    operators,
    quantized,
    run,
    snr,
    weight,
)

from onnxcomp.errors import OptionError
from onnxcomp.passes import Quantize

INTEGERS = "int8, computed with integers"
HOW = r"(nearest codes|error feedback|error feedback after refit)(, mean corrected)?"
NET = built(
    """(float[N,48] x) => (float[N,40] y) {
        a = Gemm <transB = 1> (x, w1, b1)  b = Relu(a)  c = MatMul(b, w2)  d = Tanh(c)
        y = MatMul(d, w3) }""",
    {"w1": weight(64, 48), "b1": numbers(64), "w2": matrix(64, 48), "w3": matrix(48, 40)},
)
MIXING = matrix(48, 48, 7) * np.geomspace(0.05, 3, 48, dtype=np.float32)[:, None]


def correlated(count, seed):
    return [{"x": feed["x"] @ MIXING + 0.4} for feed in feeds_of(count, seed=seed, x=(6, 48))]


DATA, UNSEEN = correlated(40, 1), correlated(12, 2)


@pytest.mark.parametrize(
    ("weight_type", "gain"), [("int8", 2), ("int4", 3), ("int2", 3), ("ternary", 3), ("binary", 3)]
)
@pytest.mark.parametrize("sequential", [False, True])
def test_data_makes_stored_weights_better(weight_type, gain, sequential):
    options = {"mode": "weights", "weight_type": weight_type}
    plain, before = quantized(NET, **options)
    result, after = quantized(NET, DATA, sequential=sequential, **options)
    original = run(NET, UNSEEN)
    assert snr(original, run(result, UNSEEN)) > snr(original, run(plain, UNSEEN)) + gain
    for name in ("w1", "w2", "w3"):
        assert re.fullmatch(f"{re.escape(before[name].reason)}; {HOW}", after[name].reason)


@pytest.mark.parametrize("mode", ["static", "dynamic"])
@pytest.mark.parametrize("weight_type", ["int8", "float16"])
def test_weights_of_integer_layers_are_repaired(mode, weight_type):
    _, verdicts = quantized(NET, DATA, mode=mode, weight_type=weight_type, ranges="minmax")
    assert re.fullmatch(rf"{INTEGERS}.*; {HOW}", verdicts["w2"].reason)


def test_means_of_outputs_are_kept():
    proto = built("(float[N,48] x) => (float[N,40] y) { y = MatMul(x, w) }", {"w": matrix(48, 40)})
    feeds = [{"x": np.abs(feed["x"])} for feed in feeds_of(60, x=(6, 48))]
    biases = []
    for given in (None, feeds):
        result, _ = quantized(proto, given, mode="weights", weight_type="int2")
        pairs = zip(run(proto, feeds), run(result, feeds), strict=True)
        missed = [one["y"] - other["y"] for one, other in pairs]
        biases.append(np.abs(np.mean(missed, axis=(0, 1))).max())
    assert biases[1] < 0.2 * biases[0]


def test_short_floats_are_only_rounded():
    plain, _ = quantized(NET, mode="weights", weight_type="float16")
    with_data, verdicts = quantized(NET, DATA, mode="weights", weight_type="float16")
    assert plain == with_data
    assert verdicts["w1"].reason == "float16, stored, and folded when the model is loaded"


CHAIN = built(
    """(float[N,L,32] x) => (float[N,L,32] y) {
        a = MatMul(x, w0)  s = Tanh(a)
        c = Mul(s, s)  u = Mul(c, c)  v = Exp(x)  z = Mul(v, v)
        d = MatMul(u, w1)  e = Tanh(d)
        f = MatMul(z, w2)  g = Tanh(f)
        h = MatMul(e, w3)  k = Sigmoid(h)
        m = MatMul(k, w4)
        n = Add(m, g)  y = Add(n, e) }""",
    {f"w{place}": matrix(32, 32, place) for place in range(5)},
)
ROWS = feeds_of(20, x=(2, 6, 32))


def integers(**options):
    """Return which layers compute with integers."""
    context = context_of(CHAIN, ROWS, min_snr=options.pop("min_snr", None))
    options = {"mode": "static", "ranges": "minmax", **options}
    _, verdicts = quantized(CHAIN, context=context, **options)
    return {name for name, each in verdicts.items() if each.reason.startswith(INTEGERS)}


def damage(name):
    """Return what it costs to round what one layer reads, and hardly the weight, in dB."""
    options = {"mode": "static", "ranges": "minmax", "keep_float": "0"}
    result, _ = quantized(CHAIN, ROWS, include=(name,), **options)
    assert operators(result)["QuantizeLinear"] == 1
    stored, _ = quantized(CHAIN, ROWS, mode="weights", include=(name,))
    original, plain = run(CHAIN, ROWS), run(result, ROWS)
    assert snr(original, run(stored, ROWS)) > snr(original, plain)
    return snr(original, plain)


def test_the_layers_that_cost_most_stay_float():
    every = {f"w{place}" for place in range(5)}
    ranked = sorted(every, key=damage)
    for count in range(4):
        assert integers(keep_float=str(count)) == every - set(ranked[:count])


def test_as_many_stay_float_as_the_ratio_needs():
    counts = [len(integers(least_snr=ratio)) for ratio in (0, 30, 40, 50, 90)]
    assert counts == sorted(counts, reverse=True)
    assert counts[0] == 5
    assert counts[-1] == 0
    assert len(set(counts)) > 2


@pytest.mark.parametrize("ratio", [30, 40, 50])
def test_the_ratio_is_reached(ratio):
    result, _ = quantized(
        CHAIN, ROWS, mode="static", ranges="minmax", least_snr=ratio, weight_type="int16"
    )
    # Weights of 8 bits have their own error.
    assert snr(run(CHAIN, ROWS), run(result, ROWS)) > min(ratio, 38)


def test_a_floor_raises_the_ratio():
    for ratio in (30, 90):
        assert integers(min_snr=ratio) == integers(least_snr=ratio)
    assert integers(min_snr=5) == integers()
    assert integers(keep_float="0", min_snr=90) == integers(keep_float="0")


@pytest.mark.parametrize(
    "options",
    [
        {"block_size": 32, "weight_type": "int16"},
        {"block_size": 24},
        {"block_size": 8},
        {"weight_type": "uint4"},
    ],
    ids=str,
)
def test_blocks_that_there_are_not(options):
    with pytest.raises(OptionError, match="quantize: block_size = "):
        Quantize(mode="weights", **options)


def test_a_wide_layer_is_not_calibrated_and_says_so(monkeypatch):
    monkeypatch.setattr("onnxcomp_passes.quantize.method.WIDEST_FINE", 3)
    _, verdicts = quantized(NET, DATA, mode="weights")
    assert "without data, since its layer has " in verdicts["w1"].reason
    assert verdicts["w1"].reason.endswith(" inputs, more than 3")
