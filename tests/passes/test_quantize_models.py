"""Quantized models give what the originals do, optimised or not."""

import numpy as np
import onnx
import pytest
from quantizing import apart, built, feeds_of, matrix, numbers, quantized, run, snr, weight

from onnxcomp.testing import random_feeds, random_model

FEEDS = 8
MOST_APART = 2 / 255 + 1e-3
"""Two steps of 8 bits: what was on the border of two codes may be rounded otherwise."""

LEAST_SNR = {
    "int16": 70,
    "float16": 55,
    "int8": 30,
    "int4": 12,
    "int2": 2,
    "ternary": 2,
    "binary": 0,
    "float8e4m3fn": 20,
}
"""In dB, of stored weights; layers in sequence add up."""

TYPES = list(LEAST_SNR)


def close(proto, feeds, least_snr, **options):
    """Quantize a model, and compare it with the original and with itself as it is."""
    result, verdicts = quantized(proto, feeds, **options)
    original, optimised = run(proto, feeds), run(result, feeds)
    plain = run(result, feeds, optimize=False)
    # Where one step is rounded otherwise, others move: no more than all of rounding does.
    assert apart(optimised, plain) <= max(MOST_APART, 2 * apart(plain, original))
    assert snr(original, optimised) >= least_snr
    assert snr(original, plain) >= least_snr
    return verdicts


@pytest.mark.parametrize("seed", range(40))
def test_random_models(seed):
    proto = random_model(seed)
    feeds = random_feeds(proto, seed, FEEDS)
    for mode in ("static", "dynamic"):
        close(proto, feeds, 15, mode=mode, min_elements=64)
    name = TYPES[seed % len(TYPES)]
    close(proto, feeds, LEAST_SNR[name], mode="weights", weight_type=name, min_elements=64)


@pytest.mark.parametrize("seed", range(42, 45))
@pytest.mark.parametrize(
    ("options", "least_snr"),
    [
        ({"mode": "weights", "weight_type": "int4", "block_size": 16}, 8),
        ({"mode": "weights", "weight_type": "uint4", "block_size": 16}, 8),
        ({"mode": "static", "profile": "generic", "ranges": "mse"}, 25),
        ({"mode": "static", "profile": "generic", "activation_type": "int16"}, 30),
        ({"mode": "static", "profile": "generic", "activation_type": "float8e4m3fn"}, 20),
        ({"mode": "static", "profile": "tensorrt", "power_of_two": True}, 15),
        ({"mode": "static", "sequential": True, "profile": "avx2"}, 22),
    ],
    ids=str,
)
def test_random_models_in_other_forms(seed, options, least_snr):
    proto = random_model(seed)
    close(proto, random_feeds(proto, seed, FEEDS), least_snr, min_elements=64, **options)


def test_one_layer_after_the_other_where_a_condition_is_computed():
    proto = random_model(7)
    feeds = random_feeds(proto, 7, FEEDS)
    options = {"mode": "static", "sequential": True, "profile": "generic", "min_elements": 64}
    result, _ = quantized(proto, feeds, **options)
    assert snr(run(proto, feeds), run(result, feeds, optimize=False)) >= 20


DENSE = """(TYPE[BATCH,32] x) => (TYPE[BATCH,48] y) {
    a = Gemm <transB = 1> (x, w1, b1)  b = Relu(a)  c = MatMul(b, w2)  d = Add(c, b2)  e = Tanh(d)
    y = Gemm(e, w3, b1) }"""
TENSORS = {
    "w1": weight(48, 32),
    "b1": numbers(48),
    "w2": matrix(48, 40),
    "b2": numbers(40),
    "w3": matrix(40, 48),
}


@pytest.mark.parametrize("mode", ["static", "dynamic", "weights"])
@pytest.mark.parametrize("opset", [9, 11, 13, 17, 21, 23, 24])
def test_opsets(mode, opset):
    body = DENSE.replace("TYPE", "float").replace("BATCH", "N")
    proto = built(body, TENSORS, opset=opset, ir_version=10 if opset > 20 else 7)
    feeds = [feed for size in (1, 4, 7) for feed in feeds_of(4, seed=size, x=(size, 32))]
    verdicts = close(proto, feeds, 28, mode=mode)
    assert {name for name, each in verdicts.items() if each.verdict == "changed"} == {
        "w1",
        "w2",
        "w3",
    }


def test_initializers_are_inputs_no_more_where_a_caller_might_override_them(models):
    small = models["opset_9"]
    result, _ = quantized(small.proto, mode="weights", weight_type="int4", block_size=16)
    proto = onnx.load_from_string(result)
    assert proto.ir_version >= 4
    assert [each.name for each in proto.graph.input] == ["x"]


@pytest.mark.parametrize("options", [{"mode": "static"}, {"mode": "dynamic"}, {"mode": "weights"}])
@pytest.mark.parametrize(("name", "dtype"), [("float16", np.float16), ("double", np.float64)])
def test_other_types_are_stored(options, name, dtype):
    tensors = {key: values.astype(dtype) for key, values in TENSORS.items()}
    proto = built(DENSE.replace("TYPE", name).replace("BATCH", "N"), tensors)
    feeds = [{"x": feed["x"].astype(dtype)} for feed in feeds_of(8, x=(4, 32))]
    verdicts = close(proto, feeds, 28, **options)
    for key in ("w1", "w2", "w3"):
        assert verdicts[key].reason.startswith("int8, stored, and folded")


@pytest.mark.parametrize("name", ["mlp", "convnet", "tied", "if_bodies", "opset_9", "stored"])
@pytest.mark.parametrize("mode", ["static", "dynamic", "weights"])
def test_small_models(models, name, mode):
    small = models[name]
    close(small.proto, small.feeds, 22, mode=mode)


def test_a_batch_of_any_size(models):
    small = models["dynamic_batch"]
    close(small.proto, small.feeds, 28, mode="static")


def test_a_branch_that_no_sample_takes_stays_float(models):
    small = models["if_bodies"]
    feeds = [{**feed, "flag": np.array(object=True)} for feed in small.feeds]
    result, _ = quantized(small.proto, feeds, mode="static")
    branching = next(n for n in onnx.load_from_string(result).graph.node if n.op_type == "If")
    rounded = [
        any(node.op_type == "QuantizeLinear" for node in attribute.g.node)
        for attribute in branching.attribute
    ]
    assert rounded == [True, False]


@pytest.mark.parametrize("mode", ["weights", "dynamic"])
def test_without_calibration_data_changes_nothing(mode):
    proto = random_model(3)
    feeds = random_feeds(proto, 3, FEEDS)
    options = {"mode": mode, "min_elements": 64}
    plain, _ = quantized(proto, None, **options)
    left, _ = quantized(proto, feeds, calibrate=0, **options)
    repaired, _ = quantized(proto, feeds, **options)
    assert left == plain
    assert left != repaired
    few, _ = quantized(proto, feeds, calibrate=2, **options)
    assert few == quantized(proto, [feeds[0], feeds[FEEDS // 2]], **options)[0]
    assert few != repaired
