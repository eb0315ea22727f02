"""Which layers integers connect, and how many parts of a model are tried."""

import pytest
from quantizing import (
    CONVNET,
    IMAGES,
    apart,
    built,
    feeds_of,
    fused_operators,
    matrix,
    quantized,
    run,
    weight,
)

from onnxcomp import load_model
from onnxcomp.statistics import layers
from onnxcomp_passes.quantize.profiles import PROFILES
from onnxcomp_passes.quantize.regions import portions, reading_together, regions
from onnxcomp_passes.quantize.selecting import full_plan

BRANCHES = built(
    """(float[N,64] x) => (float[N,32] y) {
        a = MatMul(x, q)  b = MatMul(x, k)  c = Mul(a, b)  d = Tanh(c)  y = MatMul(d, v) }""",
    {"q": matrix(64, 64), "k": matrix(64, 64, 1), "v": matrix(64, 32)},
)


def found(proto, *, wide=False):
    model = load_model(proto)
    profile = PROFILES["cpu"].widened if wide else PROFILES["cpu"]
    chosen = {id(layer.weight.tensor) for layer in layers(model)}
    return regions(model, full_plan(model, chosen, profile))


def test_a_residual_network_is_one_region():
    # The head is too small to gain.
    assert found(CONVNET) == [("w1", "w2", "w3")]


def test_floats_part_regions():
    assert found(BRANCHES) == [("q", "k"), ("v",)]


def test_reading_together():
    model = load_model(BRANCHES)
    keys = [layer.key for layer in layers(model)]
    assert reading_together(model, keys) == [("q", "k"), ("v",)]
    assert reading_together(model, keys[1:]) == [("k",), ("v",)]


@pytest.mark.parametrize(
    ("sizes", "most", "expected"),
    [
        ([1, 1, 1], 12, [1, 1, 1]),
        ([1, 1, 1, 1], 2, [2, 2]),
        ([5, 1, 1], 3, [3, 3, 1]),
        ([2, 1, 9], 4, [3, 3, 3, 3]),
        ([], 4, []),
    ],
)
def test_portions(sizes, most, expected):
    given = [tuple(f"{place}.{each}" for each in range(size)) for place, size in enumerate(sizes)]
    parts = list(portions(given, most))
    assert [len(part) for part in parts] == expected
    assert [name for part in parts for name in part] == [name for each in given for name in each]


MOBILE = built(
    """(float[N,32,8,8] x) => (float[N,64,1,1] y) {
        c = Conv(x, w1)  h = HardSigmoid <alpha = 0.1666666716> (c)  s = Mul(c, h)
        d = Conv <pads = [1, 1, 1, 1], group = 64> (s, w2)
        i = HardSigmoid <alpha = 0.1666666716> (d)  t = Mul(d, i)
        e = Conv(t, w3)  r = Relu(e)  y = GlobalAveragePool(r) }""",
    {"w1": weight(64, 32, 1, 1), "w2": weight(64, 1, 3, 3), "w3": weight(64, 64, 1, 1)},
)


def test_wide_placement_takes_depthwise_convolutions_and_gates(tmp_path):
    feeds = feeds_of(12, x=(2, 32, 8, 8))
    narrow, _ = quantized(MOBILE, feeds, mode="static", keep_float="0")
    wide, _ = quantized(MOBILE, feeds, mode="static", keep_float="0", wide=True)
    assert fused_operators(narrow, tmp_path)["QLinearConv"] == 2
    operators = fused_operators(wide, tmp_path)
    assert operators["QLinearConv"] == 3
    assert operators["QLinearMul"] == 2
    assert apart(run(wide, feeds), run(wide, feeds, optimize=False)) < 0.05
    assert apart(run(MOBILE, feeds), run(wide, feeds)) < 0.1


def test_wide_placement_changes_nothing_where_there_is_nothing_wide():
    options = {"mode": "static", "ranges": "mse"}
    narrow, _ = quantized(CONVNET, IMAGES, **options)
    assert quantized(CONVNET, IMAGES, **options, wide=True)[0] == narrow


def test_all_of_a_wide_network_is_one_region():
    assert found(MOBILE, wide=True) == [("w1", "w2", "w3")]
