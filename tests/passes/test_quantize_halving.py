"""What stays float, stored as float16: smaller, as exact as float16, and folded at load."""

import numpy as np
import onnx
import pytest
from quantizing import built, feeds_of, fused_operators, matrix, numbers, quantized, run, snr

ROWS = feeds_of(12, x=(4, 5, 96))
NET = built(
    """(float[N,L,96] x) => (float[N,L,96] y) {
        n = LayerNormalization <axis = -1> (x, gain, shift)  a = MatMul(n, w)  b = Add(a, bias)
        t = Tanh(b)  m = Mul(t, large)  c = Mul(m, inverse)
        d = MatMul(c, v)  y = Add(d, few) }""",
    {
        "gain": 1 + numbers(96),
        "shift": numbers(96),
        "w": matrix(96, 192),
        "bias": numbers(192),
        "large": np.full(192, 1e5, np.float32),
        "inverse": np.full(192, 1e-5, np.float32),
        "v": matrix(192, 96),
        "few": numbers(1),
    },
)
HALVED = "float16, stored, and folded when the model is loaded"


@pytest.mark.parametrize("mode", ["static", "dynamic", "weights"])
@pytest.mark.parametrize("feeds", [ROWS, None])
def test_the_rest_is_stored_as_float16(tmp_path, mode, feeds):
    if mode == "static" and feeds is None:
        pytest.skip("static needs data")
    options = {"mode": mode, "ranges": "minmax"}
    plain, _ = quantized(NET, feeds, **options)
    result, verdicts = quantized(NET, feeds, rest="float16", **options)
    assert len(result) < len(plain) - 2 * (96 + 96)
    for name in ("gain", "shift"):
        assert verdicts[name].verdict == "changed"
        assert verdicts[name].reason == HALVED
        assert 0 < verdicts[name].error < 2**-11
        assert verdicts[name].bytes_after < verdicts[name].bytes_before
    # What float16 does not reach.
    assert verdicts["large"].verdict == "skipped"
    assert snr(run(plain, ROWS), run(result, ROWS)) > 35
    assert snr(run(NET, ROWS), run(result, ROWS)) > snr(run(NET, ROWS), run(plain, ROWS)) - 0.3
    # Casts are computed when the model is loaded, but for those of what integers give.
    assert fused_operators(result, tmp_path) == fused_operators(plain, tmp_path)


def test_only_what_is_selected():
    result, verdicts = quantized(NET, mode="weights", rest="float16", exclude=("gain",))
    assert verdicts["gain"].verdict == "skipped"
    assert verdicts["shift"].reason == HALVED
    held = {each.name: each.data_type for each in onnx.load_from_string(result).graph.initializer}
    assert held["gain"] == onnx.TensorProto.FLOAT


def test_what_a_caller_may_override_stays_float32():
    proto = onnx.ModelProto()
    proto.CopyFrom(NET)
    kind = onnx.TensorProto.FLOAT
    proto.graph.input.append(onnx.helper.make_tensor_value_info("shift", kind, (96,)))
    _, verdicts = quantized(proto, mode="weights", rest="float16")
    assert verdicts["shift"].verdict == "skipped"
    assert verdicts["gain"].reason == HALVED


def test_integer_biases_and_scales_stay_exact():
    proto = built(
        "(float[N,96] x) => (float[N,200] y) { g = Gemm <transB = 1> (x, w, b) y = Tanh(g) }",
        {"w": matrix(200, 96), "b": numbers(200)},
    )
    options = {"mode": "static", "ranges": "minmax", "keep_float": "0"}
    rows = feeds_of(12, x=(4, 96))
    plain, _ = quantized(proto, rows, **options)
    assert quantized(proto, rows, rest="float16", **options)[0] == plain
