"""Models that are quantized already: refused in one line, or made float first."""

import numpy as np
import onnx
import pytest
from quantizing import built, feeds_of, matrix, numbers, operators, quantized, run, snr

from onnxcomp import load_model
from onnxcomp.errors import OptionError
from onnxcomp.graph import weights
from onnxcomp.testing.small_model import constant_node

AGAIN = "quantized already; quantize the float model, or give --requantize"
ROWS = feeds_of(12, x=(2, 5, 48))
NET = built(
    """(float[N,L,48] x) => (float[N,L,40] y) {
        a = MatMul(x, w1)  b = Tanh(a)  c = MatMul(b, w2)  d = Sigmoid(c)  e = MatMul(d, w3)
        f = Tanh(e)  y = MatMul(f, w4) }""",
    {
        "w1": matrix(48, 64),
        "w2": matrix(64, 48),
        "w3": matrix(48, 48),
        "w4": matrix(48, 40),
    },
)


def foreign(**parts):
    """Return a model that something else has quantized, and the float model that it came from."""
    w, v = matrix(48, 64), matrix(64, 40)
    scales = [np.abs(w).max(axis=0) / 127, np.array(np.abs(v).max() / 127, np.float32)]
    text = """(float[N,48] x) => (float[N,40] y) {
        xq = QuantizeLinear(x, xs, xz)  xd = DequantizeLinear(xq, xs, xz)
        wd = DequantizeLinear <axis = 1> (w8, ws, wz)  bd = DequantizeLinear <axis = 0> (b32, bs)
        a = Gemm(xd, wd, bd)  r = Relu(a)
        rq = QuantizeLinear(r, rs, xz)  rd = DequantizeLinear(rq, rs, xz)
        vd = DequantizeLinear(v8, vs)  y = MatMul(rd, vd) }"""
    tensors = {
        "xs": np.array(0.03, np.float32),
        "xz": np.array(128, np.uint8),
        "rs": np.array(0.03, np.float32),
        "w8": np.rint(w / scales[0]).astype(np.int8),
        "ws": scales[0],
        "wz": np.zeros(64, np.int8),
        "b32": np.rint(numbers(64) / (scales[0] * 0.03)).astype(np.int32),
        "bs": (scales[0] * np.float32(0.03)).astype(np.float32),
        "v8": np.rint(v / scales[1]).astype(np.int8),
        "vs": scales[1],
    }
    moved = {name: tensors.pop(name) for name in parts.get("nodes", ())}
    proto = built(text, tensors)
    for name, values in moved.items():
        proto.graph.node.insert(0, constant_node(name, values))
    original = built(
        """(float[N,48] x) => (float[N,40] y) { a = Gemm(x, w, b)  r = Relu(a)
            y = MatMul(r, v) }""",
        {"w": w, "b": numbers(64), "v": v},
    )
    return proto, original


@pytest.mark.parametrize(
    ("options", "names"),
    [
        ({"mode": "static"}, "'w1', 'w2', 'w3' and 1 more are"),
        ({"mode": "static", "include": ("w2", "w4")}, "'w2', 'w4' are"),
        (
            {"mode": "dynamic"},
            "'w1.codes', 'w2.codes', 'w3.codes' and 1 more are",
        ),
    ],
    ids=str,
)
def test_our_own(options, names):
    once, _ = quantized(NET, ROWS, **options)
    for mode in ("static", "dynamic", "weights", "auto"):
        with pytest.raises(OptionError) as raised:
            quantized(onnx.load_from_string(once), ROWS, mode=mode)
        assert str(raised.value) == f"quantize: {names} {AGAIN}"


@pytest.mark.parametrize("nodes", [(), ("w8", "ws", "wz", "v8", "vs")])
def test_a_stranger(nodes):
    proto, _ = foreign(nodes=nodes)
    with pytest.raises(OptionError) as raised:
        quantized(proto, feeds_of(8, x=(4, 48)), mode="static")
    message = str(raised.value)
    assert message.startswith("quantize: '")
    assert message.endswith(f" are {AGAIN}")
    assert "'v8'" in message or "'vd'" in message
    assert "\n" not in message


@pytest.mark.parametrize("nodes", [(), ("w8", "ws", "wz", "v8", "vs")])
@pytest.mark.parametrize("mode", ["static", "dynamic", "weights"])
def test_a_stranger_once_more(nodes, mode):
    proto, original = foreign(nodes=nodes)
    feeds = feeds_of(12, x=(4, 48))
    result, _ = quantized(proto, feeds, mode=mode, requantize=True)
    wanted = run(original, feeds)
    # What the stranger's rounding of activations cost is not paid for twice.
    assert snr(wanted, run(result, feeds)) > snr(wanted, run(proto, feeds)) - 0.5
    if mode != "static":
        assert not operators(result)["QuantizeLinear"]


def test_codes_that_a_caller_may_override_stay():
    proto, _ = foreign()
    proto.graph.input.append(
        onnx.helper.make_tensor_value_info("v8", onnx.TensorProto.INT8, (64, 40))
    )
    result, _ = quantized(proto, mode="weights", requantize=True, exclude=("v8",))
    feed, codes = feeds_of(1, x=(4, 48))[0], np.zeros((64, 40), np.int8)
    (given,) = run(result, [{**feed, "v8": codes}])
    assert not given["y"].any()


def test_our_own_once_more():
    once, _ = quantized(NET, ROWS, mode="static")
    again, verdicts = quantized(onnx.load_from_string(once), ROWS, mode="static", requantize=True)
    assert all(verdicts[f"w{place}"].verdict == "changed" for place in range(1, 5))
    assert operators(again)["QuantizeLinear"] == operators(once)["QuantizeLinear"]
    assert snr(run(NET, ROWS), run(again, ROWS)) > 30


def test_a_float_model_once_more():
    for mode in ("static", "dynamic", "weights"):
        plain, _ = quantized(NET, ROWS, mode=mode)
        again, _ = quantized(NET, ROWS, mode=mode, requantize=True)
        assert again == plain


def test_what_is_not_selected_may_be_quantized():
    once, _ = quantized(NET, ROWS, mode="static", include=("w1",))
    proto = onnx.load_from_string(once)
    result, verdicts = quantized(proto, ROWS, mode="weights", exclude=("w1",))
    assert verdicts["w2"].verdict == "changed"
    assert verdicts["w1"].verdict == "skipped"
    kept = {each.name: each.load() for each in weights(load_model(result))}
    (before,) = [each.load() for each in weights(load_model(once)) if each.name == "w1"]
    assert np.array_equal(kept["w1"], before)


def of_integers():
    """Return operators of integers, as others write them, and the float model of the same."""
    w, v, u = numbers(4, 4, 3, 3) / np.float32(6), matrix(6, 6), matrix(6, 8)
    scale = np.abs(w).max(axis=(1, 2, 3)) / 127
    steps = {"vs": np.abs(v).max(axis=0) / 127, "us": np.array(np.abs(u).max() / 127, np.float32)}
    text = """(float[N,4,6,6] x) => (float[N,4,6,8] y) {
        xq = QuantizeLinear(x, xs, xz)
        cq = QLinearConv <pads = [1, 1, 1, 1]> (xq, xs, xz, w8, ws, wz, cs, xz, b32)
        mq = QLinearMatMul(cq, cs, xz, v8, vs, vz, ms, xz)
        m = DequantizeLinear(mq, ms, xz)
        q, s, z = DynamicQuantizeLinear(m)
        i = MatMulInteger(q, u8, z, uz)  f = Cast <to = 1> (i)  g = Mul(s, us)  y = Mul(f, g) }"""
    tensors = {
        **steps,
        "xs": np.array(0.04, np.float32),
        "xz": np.array(128, np.uint8),
        "w8": np.rint(w / scale[:, None, None, None]).astype(np.int8),
        "ws": scale,
        "wz": np.zeros(4, np.int8),
        "b32": np.rint(numbers(4) / (scale * np.float32(0.04))).astype(np.int32),
        "cs": np.array(0.05, np.float32),
        "v8": np.rint(v / steps["vs"]).astype(np.int8),
        "vz": np.zeros(6, np.int8),
        "ms": np.array(0.05, np.float32),
        "u8": np.rint(u / steps["us"]).astype(np.int8),
        "uz": np.array(0, np.int8),
    }
    floats = """(float[N,4,6,6] x) => (float[N,4,6,8] y) {
        c = Conv <pads = [1, 1, 1, 1]> (x, w, b)  m = MatMul(c, v)  y = MatMul(m, u) }"""
    return built(text, tensors), built(floats, {"w": w, "b": numbers(4), "v": v, "u": u})


def test_operators_of_integers_become_float_ones():
    proto, original = of_integers()
    feeds = feeds_of(12, x=(2, 4, 6, 6))
    with pytest.raises(OptionError, match=AGAIN):
        quantized(proto, mode="weights")
    result, _ = quantized(proto, mode="weights", requantize=True, min_elements=32)
    found = operators(result)
    assert (found["Conv"], found["MatMul"], found["Cast"]) == (1, 2, 0)
    assert not any("Quantize" in op or "Integer" in op for op in found)
    assert snr(run(original, feeds), run(result, feeds)) > 30


def test_operators_of_integers_that_are_not_known_are_refused():
    proto, _ = of_integers()
    proto.graph.output.append(
        onnx.helper.make_tensor_value_info("i", onnx.TensorProto.INT32, None)
    )
    with pytest.raises(
        OptionError, match="'u8' are quantized in a way that --requantize does not"
    ):
        quantized(proto, mode="weights", requantize=True)
