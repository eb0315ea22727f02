"""Multiplied and added constants folded into the layers around them, and where they stay."""

import numpy as np
import pytest
from simplifying import built, numbers, operators, same_outputs, simplified

CHANNEL = (1, 6, 1, 1)


def graph(body, *, channels=6, outputs="y", **tensors):
    declared = ", ".join(f"float[N, C_{each}, H_{each}, W_{each}] {each}" for each in outputs)
    text = f"g (float[1, {channels}, 8, 8] x) => ({declared}) {{ {body} }}"
    return built(text, **tensors)


@pytest.mark.parametrize(
    ("following", "shape"),
    [
        ("Mul (c, k)", ()),
        ("Mul (k, c)", (1,)),
        ("Mul (c, k)", CHANNEL),
        ("Div (c, k)", (6, 1, 1)),
        ("Add (c, k)", (1,)),
        ("Add (k, c)", CHANNEL),
        ("Sub (c, k)", (6, 1, 1)),
        ("Sub (k, c)", ()),
    ],
)
@pytest.mark.parametrize("bias", ["", ", b"])
@pytest.mark.parametrize(
    ("layer", "weight"), [("Conv", (6, 6, 3, 3)), ("ConvTranspose <group = 2>", (6, 3, 2, 2))]
)
def test_what_follows_a_layer(layer, weight, bias, following, shape):
    more = {"b": numbers(6, seed=2)} if bias else {}
    proto = graph(
        f"c = {layer} (x, w{bias}) y = {following}", w=numbers(*weight), k=numbers(*shape), **more
    )
    result, _ = simplified(proto)
    assert operators(result.graph) == [layer.split()[0]]
    same_outputs(proto, result, x=numbers(1, 6, 8, 8))


def test_a_chain_after_a_layer_and_a_gemm():
    proto = built(
        "g (float[3, 6] x) => (float[3, 4] y) "
        "{ a = Gemm <beta = 2.0> (x, w, b) c = Mul (a, s) d = Sub (c, t) y = Div (d, u) }",
        w=numbers(6, 4),
        b=numbers(4),
        s=numbers(4, seed=3),
        t=numbers(1, 4),
        u=np.float32(3),
    )
    result, _ = simplified(proto)
    assert operators(result.graph) == ["Gemm"]
    same_outputs(proto, result, x=numbers(3, 6))


CONVOLUTIONS = [
    ("Conv", (4, 6, 3, 3)),
    ("Conv <group = 6>", (6, 1, 3, 3)),
    ("Conv <group = 2>", (4, 3, 1, 1)),
]


@pytest.mark.parametrize(("layer", "weight"), CONVOLUTIONS)
@pytest.mark.parametrize("shape", [(), CHANNEL])
@pytest.mark.parametrize("bias", ["", ", b"])
def test_what_comes_before_a_layer(layer, weight, shape, bias):
    more = {"b": numbers(weight[0], seed=2)} if bias else {}
    proto = graph(
        f"a = Tanh (x) s = Mul (a, k) t = Add (s, m) y = {layer} (t, w{bias})",
        w=numbers(*weight),
        k=numbers(*shape),
        m=numbers(*shape, seed=4),
        **more,
    )
    result, _ = simplified(proto)
    assert operators(result.graph) == ["Tanh", "Conv"]
    same_outputs(proto, result, x=numbers(1, 6, 8, 8))


@pytest.mark.parametrize("shift", ["Add (s, m)", "Add (m, s)", "Sub (s, m)"])
@pytest.mark.parametrize("shape", [(), CHANNEL])
def test_a_shift_beside_padding_stays_and_the_scale_goes(shift, shape):
    proto = graph(
        f"a = Tanh (x) s = Mul (a, k) t = {shift} "
        "y = Conv <group = 6, pads = [1, 1, 1, 1]> (t, w) "
        'z = Conv <auto_pad = "SAME_UPPER"> (t, v)',
        outputs="yz",
        w=numbers(6, 1, 3, 3),
        v=numbers(4, 6, 3, 3),
        k=numbers(*shape),
        m=numbers(1, seed=4),
    )
    result, _ = simplified(proto)
    assert operators(result.graph) == ["Tanh", shift[:3], "Conv", "Conv"]
    same_outputs(proto, result, x=numbers(1, 6, 8, 8))


def test_a_shared_shift_is_moved_for_one_reader_only():
    proto = graph(
        "a = Tanh (x) s = Mul (a, k) t = Add (s, m) y = Conv <pads = [1, 1, 1, 1]> (t, w) "
        "z = Add (a, m)",
        outputs="yz",
        w=numbers(6, 6, 3, 3),
        k=numbers(),
        m=numbers(*CHANNEL),
    )
    result, _ = simplified(proto)
    assert sorted(operators(result.graph)) == ["Add", "Add", "Conv", "Tanh"]
    same_outputs(proto, result, x=numbers(1, 6, 8, 8))


@pytest.mark.parametrize(
    ("layer", "weight", "left"),
    [
        ("Gemm (t, w)", (6, 4), []),
        ("Gemm <transB = 1, alpha = 0.5> (t, w, b)", (4, 6), []),
        ("Gemm <beta = 2.0> (t, w, b)", (6, 4), ["Add"]),
        ("MatMul (t, w)", (6, 4), ["Add"]),
    ],
)
@pytest.mark.parametrize("shape", [(), (6,)])
def test_what_comes_before_a_product(layer, weight, left, shape):
    text = (
        "g (float[3, 6] x) => (float[3, 4] y) "
        f"{{ a = Tanh (x) s = Mul (k, a) t = Add (s, m) y = {layer} }}"
    )
    more = {"b": numbers(4, seed=2)} if ", b" in layer else {}
    tensors = {"w": numbers(*weight), "k": numbers(*shape), "m": numbers(*shape, seed=4)}
    proto = built(text, **tensors, **more)
    result, _ = simplified(proto)
    assert operators(result.graph) == ["Tanh", *left, layer.split()[0]]
    same_outputs(proto, result, x=numbers(3, 6))


@pytest.mark.parametrize(
    "body",
    [
        "s = Mul (x, k) y = Conv (s, w) z = Neg (s)",
        "s = Mul (x, k) y = Conv (s, w) z = Conv (x, w)",
        "s = Mul (x, rows) y = Conv (s, w) z = Neg (x)",
        "y = Conv (x, w) z = Mul (y, k)",
        "c = Conv (x, w) y = Mul (c, rows) z = Neg (x)",
        "s = Add (x, k) y = Conv <pads = [1, 1, 1, 1]> (s, w) z = Neg (x)",
        "s = Div (k, x) y = Conv (s, w) z = Neg (x)",
    ],
)
def test_what_stays(body):
    proto = graph(body, outputs="yz", w=numbers(6, 6, 1, 1), k=numbers(), rows=numbers(1, 1, 8, 1))
    result, _ = simplified(proto)
    assert operators(result.graph) == [node.op_type for node in proto.graph.node]
    same_outputs(proto, result, x=1 + np.square(numbers(1, 6, 8, 8)))


def test_a_scale_that_broadcasts_channels_stays():
    proto = graph(
        "s = Mul (x, k) y = Conv (s, w)", channels=1, w=numbers(4, 6, 1, 1), k=numbers(*CHANNEL)
    )
    result, _ = simplified(proto)
    assert operators(result.graph) == ["Mul", "Conv"]
    same_outputs(proto, result, x=numbers(1, 1, 8, 8))


def test_a_scale_that_overflows_or_divides_by_nothing_stays():
    body = "a = Tanh (x) s = Mul (a, k) t = Add (s, m) y = Conv <pads = [1, 1, 1, 1]> (t, w)"
    weight = numbers(6, 6, 3, 3)
    for factor in (0.0, 1e-38, 3e38):
        proto = graph(body, w=2 * weight, k=np.float32(factor), m=np.float32(100))
        result, _ = simplified(proto)
        assert operators(result.graph) == ["Tanh", "Mul", "Add", "Conv"]


def test_what_may_be_overridden_stays():
    proto = graph("c = Conv (x, w) y = Mul (c, k)", w=numbers(6, 6, 1, 1), k=numbers(1))
    listed = proto.graph.input.add()
    listed.CopyFrom(proto.graph.input[0])
    listed.name = "k"
    del listed.type.tensor_type.shape.dim[1:]
    result, _ = simplified(proto)
    assert operators(result.graph) == ["Conv", "Mul"]
