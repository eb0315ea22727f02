"""Which operators compute with integers, and which tensors are rounded for that."""

from math import inf

import numpy as np
import onnx
import pytest
from quantizing import built, feeds_of, fused_operators, matrix, numbers, quantized, weight

from onnxcomp import load_model
from onnxcomp.graph import weights
from onnxcomp.testing.small_model import add_weights
from onnxcomp_passes.quantize.profiles import PROFILES
from onnxcomp_passes.quantize.selecting import full_plan

IMAGE = "(float[N,16,8,8] x) => (float[N,C,H,W] y)"
ROWS = "(float[N,L,32] x) => (float[N,L,M] y)"
FLAT = "(float[8,32] x) => (float[A,B] y)"
SAME = "Conv <pads = [1, 1, 1, 1]>"
W, V, U = (weight(16, 16, 3, 3, seed=seed) for seed in range(3))
IMAGES = feeds_of(10, x=(2, 16, 8, 8))


def placed(signature, body, profile="cpu", **tensors):
    """Return what is computed with integers, and the graph's operators by their outputs."""
    model = load_model(built(f"{signature} {{ {body} }}", tensors))
    chosen = {id(each.tensor) for each in weights(model)}
    placement = full_plan(model, chosen, PROFILES[profile]).place(model)
    nodes = {node.outputs[0].name: id(node) for node in model.nodes}
    return placement, nodes


def rounded(placement):
    """Return whether each tensor that is rounded comes from what gives integers."""
    return {each.name: each.is_given for each in placement.tensors}


def quantizers(model):
    """Return, by what it reads, the scale and the zero point of each QuantizeLinear."""
    graph = onnx.load_from_string(model).graph
    values = {each.name: onnx.numpy_helper.to_array(each) for each in graph.initializer}
    return {
        node.input[0]: tuple(values[name] for name in node.input[1:])
        for node in graph.node
        if node.op_type == "QuantizeLinear"
    }


@pytest.mark.parametrize(
    ("activation", "end", "before"),
    [
        ("r = Relu(c)", inf, True),
        ("r = Clip(c, zero, six)", 6, True),
        ("r = Clip(c, zero)", inf, True),
        ("r = Clip(c, minus, six)", None, False),
        ("r = Clip(c, '', six)", None, False),
        ("r = Tanh(c)", None, False),
    ],
)
def test_an_activation_that_starts_at_zero_is_part_of_the_convolution(activation, end, before):
    body = f"c = {SAME}(x, w)  {activation}  d = {SAME}(r, v)  s = Relu(d)  y = {SAME}(s, u)"
    ends = {"zero": np.float32(0), "six": np.float32(6), "minus": np.float32(-1)}
    tensors = {name: value for name, value in ends.items() if name in activation}
    found, _ = placed(IMAGE, body.replace("''", ""), w=W, v=V, u=U, **tensors)
    assert found.keys == {"w", "v"}
    expected = {"x": False, "r": True, "s": True} if before else None
    expected = expected or {"x": False, "c": True, "r": False, "s": True}
    assert rounded(found) == expected
    bounds = next(each.bounds for each in found.tensors if each.name == "r")
    assert bounds == ((-inf, inf) if end is None else (0, end))


def test_the_grid_ends_where_a_clip_does(tmp_path):
    body = f"c = {SAME}(x, w, b)  r = Clip(c, zero, one)  d = {SAME}(r, v)  s = Relu(d)"
    tensors = {"w": W, "v": V, "b": numbers(16), "zero": np.float32(0), "one": np.float32(0.7)}
    proto = built(f"{IMAGE} {{ {body}  y = Tanh(s) }}", tensors)
    for ranges in ("output", "minmax", "mse"):
        result, _ = quantized(proto, IMAGES, mode="static", ranges=ranges)
        scale, zero = quantizers(result)["r"]
        assert zero == 0
        assert float(scale) * 255 <= np.float32(0.7)
        counts = fused_operators(result, tmp_path)
        assert (counts["QLinearConv"], counts["Clip"], counts["Relu"]) == (2, 0, 0)


RESIDUAL = f"""
    c = {SAME}(x, w)  r = Relu(c)  d = {SAME}(r, v)  a = Add(d, r)  s = Relu(a)
    e = {SAME}(s, u)  y = Tanh(e)
"""


def test_a_residual_is_added_with_integers(tmp_path):
    found, nodes = placed(IMAGE, RESIDUAL, w=W, v=V, u=U)
    assert rounded(found) == {"x": False, "r": True, "d": True, "s": True, "e": True}
    assert nodes["a"] in found.nodes
    proto = built(f"{IMAGE} {{ {RESIDUAL} }}", {"w": W, "v": V, "u": U})
    result, _ = quantized(proto, IMAGES, mode="static")
    counts = fused_operators(result, tmp_path)
    assert (counts["QLinearConv"], counts["QLinearAdd"], counts["Add"]) == (3, 1, 0)


def test_a_residual_from_floats_is_added_with_floats():
    body = f"t = Tanh(x)  d = {SAME}(t, v)  a = Add(d, t)  e = {SAME}(a, u)  y = Tanh(e)"
    found, nodes = placed(IMAGE, body, v=V, u=U)
    assert nodes["a"] not in found.nodes
    assert rounded(found) == {"t": False, "d": True, "a": False, "e": True}


def test_joined_channels(tmp_path):
    body = f"""c = {SAME}(x, w)  r = Relu(c)  d = {SAME}(r, v)  a = Concat <axis = 1> (d, r)
        e = Conv(a, u)  y = Tanh(e)"""
    tensors = {"w": W, "v": V, "u": weight(40, 32, 1, 1)}
    found, nodes = placed(IMAGE, body, **tensors)
    assert nodes["a"] in found.nodes
    assert rounded(found)["a"]
    result, _ = quantized(built(f"{IMAGE} {{ {body} }}", tensors), IMAGES, mode="static")
    counts = fused_operators(result, tmp_path)
    assert (counts["QLinearConcat"], counts["Concat"]) == (1, 0)


@pytest.mark.parametrize("ranges", ["output", "minmax", "mse"])
def test_pooling_passes_its_grid_on(tmp_path, ranges):
    pooling = "MaxPool <kernel_shape = [2, 2], strides = [2, 2]>"
    body = f"c = {SAME}(x, w, b)  r = Relu(c)  m = {pooling}(r)  d = {SAME}(m, v)  y = Tanh(d)"
    tensors = {"w": W, "v": V, "b": numbers(16)}
    found, _ = placed(IMAGE, body, **tensors)
    sources = {each.name: each.source and each.source.name for each in found.tensors}
    assert sources == {"x": None, "r": None, "m": "r", "d": None}
    proto = built(f"{IMAGE} {{ {body} }}", tensors)
    result, _ = quantized(proto, IMAGES, mode="static", ranges=ranges)
    grids = quantizers(result)
    assert grids["m"] == grids["r"]
    counts = fused_operators(result, tmp_path)
    assert counts["MaxPool"] == 0
    assert counts["NhwcMaxPool"] == 1


def test_what_floats_read_of_what_floats_made_is_as_it_was():
    body = "t = Tanh(x)  a = MatMul(t, w)  s = Sigmoid(t)  b = MatMul(s, v)  y = Add(a, b)"
    tensors = {"w": matrix(32, 48), "v": matrix(32, 48, 1)}
    found, _ = placed(ROWS, body, **tensors)
    assert rounded(found) == {"t": False, "s": False}
    proto = built(f"{ROWS} {{ {body} }}", tensors)
    result, _ = quantized(proto, feeds_of(10, x=(2, 5, 32)), mode="static", ranges="mse")
    read = {node.op_type: node.input for node in onnx.load_from_string(result).graph.node}
    assert read["Sigmoid"] == ["t"]
    assert "t" not in read["MatMul"]


def test_what_floats_read_of_what_integers_made_is_rounded():
    body = f"c = {SAME}(x, w)  r = Relu(c)  d = {SAME}(r, v)  s = Sigmoid(r)  y = Mul(s, d)"
    proto = built(f"{IMAGE} {{ {body} }}", {"w": W, "v": V})
    result, _ = quantized(proto, IMAGES, mode="static")
    nodes = onnx.load_from_string(result).graph.node
    (source,) = next(node.input for node in nodes if node.op_type == "Sigmoid")
    assert next(node.op_type for node in nodes if source in node.output) == "DequantizeLinear"


@pytest.mark.parametrize("end", ["y = Conv(r, v)", "c2 = Conv(r, v)  y = Relu(c2)"])
def test_a_convolution_that_gives_an_output_stays_float(end):
    found, _ = placed(IMAGE, f"c = {SAME}(x, w)  r = Relu(c)  {end}", w=W, v=V)
    assert found.keys == {"w"}


DEPTHWISE = "Conv <pads = [1, 1, 1, 1], group = 16>"


def test_a_depthwise_convolution_joins_those_around_it():
    body = f"""c = {SAME}(x, w)  r = Relu(c)  d = {DEPTHWISE}(r, k)  s = Relu(d)
        e = {SAME}(s, v)  y = Tanh(e)"""
    found, _ = placed(IMAGE, body, w=W, v=V, k=weight(16, 1, 3, 3))
    assert found.keys == {"w", "k", "v"}
    assert all(given for name, given in rounded(found).items() if name != "x")


@pytest.mark.parametrize(
    "body",
    [
        f"d = {DEPTHWISE}(x, k)  s = Relu(d)  e = {SAME}(s, v)  y = Tanh(e)",
        f"c = {SAME}(x, v)  r = Relu(c)  d = {DEPTHWISE}(r, k)  y = Tanh(d)",
    ],
    ids=["first", "last"],
)
def test_a_depthwise_convolution_beside_floats_stays_float(body):
    found, _ = placed(IMAGE, body, v=V, k=weight(16, 1, 3, 3))
    assert found.keys == {"v"}


@pytest.mark.parametrize(
    ("layer", "bias", "is_integer"),
    [
        ("Gemm(x, w, b)", (48,), True),
        ("Gemm(x, w)", None, True),
        ("Gemm(x, w, b)", (1, 48), True),
        ("Gemm(x, w, b)", (1,), True),
        ("Gemm <alpha = 1.0, beta = 1.0, transA = 0> (x, w, b)", (48,), True),
        ("Gemm <transB = 1> (x, wt, b)", (48,), True),
        ("Gemm <alpha = 2.0> (x, w, b)", (48,), False),
        ("Gemm <beta = 0.5> (x, w, b)", (48,), False),
        ("Gemm <transA = 1> (xt, w, b)", (48,), False),
        ("Gemm(x, w, b)", (8, 48), False),
        ("Gemm(x, w, b)", (48, 1), False),
        ("Gemm(x, w, computed)", (48,), False),
    ],
)
def test_gemm(layer, bias, is_integer):
    tensors = {"w": matrix(32, 48), "wt": matrix(32, 48).T, "b": numbers(*(bias or ()))}
    body = "xt = Transpose(x) " if "xt" in layer else ""
    body += "computed = Tanh(b) " if "computed" in layer else ""
    named = {name: value for name, value in tensors.items() if f"{name}" in f"{body}{layer}"}
    found, _ = placed(FLAT.replace("8,", "48,"), f"{body} y = {layer}", **named)
    assert bool(found.keys) == is_integer


@pytest.mark.parametrize(
    ("shape", "is_integer"),
    [
        ((32, 3, 3, 3), False),
        ((64, 3, 3, 3), False),
        ((64, 3, 7, 7), True),
        ((32, 4, 3, 3), True),
        ((32, 16, 3, 3), True),
    ],
)
def test_a_first_layer_of_three_channels_stays_float(shape, is_integer):
    signature = f"(float[N,{shape[1]},8,8] x) => (float[N,C,H,W] y)"
    found, _ = placed(signature, f"c = {SAME}(x, w)  y = Tanh(c)", w=weight(*shape))
    assert bool(found.keys) == is_integer


def test_a_weight_that_two_layers_share():
    body = "a = MatMul(x, w)  b = Tanh(a)  y = MatMul(b, w)"
    tensors = {"w": matrix(32, 32)}
    found, _ = placed(ROWS, body, **tensors)
    assert found.keys == {"w"}
    assert rounded(found) == {"x": False, "b": False}
    proto = built(f"{ROWS} {{ {body} }}", tensors)
    result, _ = quantized(proto, feeds_of(10, x=(2, 5, 32)), mode="static")
    stored = [each for each in onnx.load_from_string(result).graph.initializer if each.dims]
    assert [each.data_type for each in stored].count(onnx.TensorProto.INT8) == 1


def test_a_weight_that_one_layer_cannot_use_as_integers():
    body = "a = Gemm(x, w)  b = Tanh(a)  y = Gemm <alpha = 2.0> (b, w)"
    found, _ = placed(FLAT, body, w=matrix(32, 32))
    assert not found.keys


@pytest.mark.parametrize(
    "outer",
    ["z = Tanh(x)", "q = MatMul(x, shared)  z = Relu(q)", "z = Tanh(x)  k = MatMul(z, shared)"],
)
@pytest.mark.parametrize("mode", ["static", "dynamic"])
def test_what_branches_read_from_outside_is_rounded(outer, mode):
    proto = built(
        f"""(float[N,40] x, bool flag) => (float[N,40] y) {{ {outer}
            t = If (flag) <
                then_branch = one () => (float[N,40] a) {{ a = MatMul(z, w) }},
                else_branch = two () => (float[N,40] b) {{ c = MatMul(z, w)  b = Tanh(c) }}
            >
            y = Add(t, z) }}""",
        {"shared": matrix(40, 40)},
    )
    branching = next(node for node in proto.graph.node if node.op_type == "If")
    for place, attribute in enumerate(branching.attribute):
        add_weights(attribute.g, {"w": matrix(40, 40, place + 1)})
    feeds = [
        {**feed, "flag": np.array(bool(place % 2))}
        for place, feed in enumerate(feeds_of(12, x=(3, 40)))
    ]
    result, verdicts = quantized(proto, feeds, mode=mode)
    assert "computed with integers" in verdicts["w"].reason
    branching = next(n for n in onnx.load_from_string(result).graph.node if n.op_type == "If")
    op = {"static": "QuantizeLinear", "dynamic": "DynamicQuantizeLinear"}[mode]
    # What data tells beforehand is rounded once, where it is computed.
    expected = {"static": 0, "dynamic": 1}[mode]
    for attribute in branching.attribute:
        assert [node.op_type for node in attribute.g.node].count(op) == expected
