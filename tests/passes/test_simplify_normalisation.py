"""BatchNormalization folded into the layer before it, and where it has to stay."""

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from simplifying import (
    NORMALISE,
    built,
    conv_model,
    norm,
    numbers,
    operators,
    same_outputs,
    simplified,
)

from onnxcomp import load_model
from onnxcomp.graph import model_bytes


@pytest.mark.parametrize("opset", [11, 13, 14, 17])
@pytest.mark.parametrize(
    ("layer", "weight", "bias"),
    [
        ("Conv (x, w)", (4, 6, 3, 3), None),
        ("Conv (x, w, b)", (4, 6, 3, 3), 4),
        ("Conv <group = 3> (x, w, b)", (6, 2, 3, 3), 6),
        ("ConvTranspose (x, w)", (6, 4, 2, 2), None),
        ("ConvTranspose <group = 3, strides = [2, 2]> (x, w, b)", (6, 2, 2, 2), 6),
    ],
)
def test_normalisation_goes_into_convolutions(layer, weight, bias, opset):
    channels = weight[1] * 3 if "Transpose <" in layer else weight["Transpose" in layer]
    more = {} if bias is None else {"b": numbers(bias)}
    proto = conv_model(layer, numbers(*weight), channels, opset, **more)
    result, verdicts = simplified(proto)
    assert operators(result.graph) == [layer.split()[0]]
    same_outputs(proto, result, x=numbers(1, 6, 5, 5))
    assert verdicts["w"].reason == "BatchNormalization folded into it"
    assert verdicts["gain"].reason == "folded away with its BatchNormalization"
    assert verdicts["gain"].bytes_after == 0
    assert list(result.graph.output) == list(proto.graph.output)


@pytest.mark.parametrize(
    ("gemm", "weight", "bias"),
    [
        ("Gemm (x, w)", (6, 4), None),
        ("Gemm <transB = 1, alpha = 0.5, beta = 3.0> (x, w, b)", (4, 6), (4,)),
        ("Gemm <beta = 2.0> (x, w, b)", (6, 4), (1, 4)),
        ("Gemm (x, w, b)", (6, 4), ()),
    ],
)
def test_normalisation_goes_into_gemm(gemm, weight, bias):
    text = f"g (float[3, 6] x) => (float[3, 4] y) {{ c = {gemm} y = {NORMALISE.format('c')} }}"
    more = {} if bias is None else {"b": numbers(*bias)}
    proto = built(text, w=numbers(*weight), **norm(4), **more)
    result, _ = simplified(proto)
    assert operators(result.graph) == ["Gemm"]
    same_outputs(proto, result, x=numbers(3, 6))


def test_a_bias_for_each_sample_stays():
    text = (
        f"g (float[3, 6] x) => (float[3, 4] y) {{ c = Gemm(x, w, b) y = {NORMALISE.format('c')} }}"
    )
    proto = built(text, w=numbers(6, 4), b=numbers(3, 4), **norm(4))
    assert "BatchNormalization" in operators(simplified(proto)[0].graph)


def test_chains_and_shared_biases():
    text = f"""
    g (float[1, 4, 5, 5] x) => (float[1, 4, 5, 5] y) {{
        c = Conv (x, w, b)
        n = {NORMALISE.format("c")}
        m = {NORMALISE.format("n")}
        r = Relu(m)
        d = Conv (r, v, b)
        y = {NORMALISE.format("d")}
    }}"""
    tensors = {"w": numbers(4, 4, 1, 1), "v": numbers(4, 4, 1, 1, seed=9), "b": numbers(4)}
    proto = built(text, **tensors, **norm(4))
    result, _ = simplified(proto)
    assert operators(result.graph) == ["Conv", "Relu", "Conv"]
    same_outputs(proto, result, x=numbers(1, 4, 5, 5))


@pytest.mark.parametrize(
    "body",
    [
        "c = Conv (x, w) d = Conv (x, w) n = NORM e = Add(d, n) y = Relu(e)",
        "c = Conv (x, w) n = NORM y = Add(c, n)",
        "c = Conv (x, w) n = NORM d = Relu(c) e = Mul(d, n) y = Relu(e)",
        "c = Conv (x, w) n, m, v = TRAIN y = Relu(n)",
        "v = Abs(x) w = Slice(v, from, to) c = Conv(x, w) n = NORM y = Relu(n)",
    ],
    ids=["shared weight", "other reader", "two readers", "training", "computed weight"],
)
def test_normalisation_that_stays(body):
    train = "BatchNormalization <training_mode = 1> (c, gain, shift, mean, variance)"
    body = body.replace("NORM", NORMALISE.format("c")).replace("TRAIN", train)
    text = f"g (float[4, 4, 1, 1] x) => (float[4, 4, 1, 1] y) {{ {body} }}"
    own = (
        {"from": np.array([0]), "to": np.array([4])}
        if "Slice" in body
        else {"w": numbers(4, 4, 1, 1)}
    )
    proto = built(text, **own, **norm(4))
    result, _ = simplified(proto)
    assert "BatchNormalization" in operators(result.graph)
    same_outputs(proto, result, x=numbers(4, 4, 1, 1))


def test_a_convolution_that_is_an_output_stays():
    text = f"""
    g (float[1, 4, 5, 5] x) => (float[1, 4, 5, 5] c, float[1, 4, 5, 5] y) {{
        c = Conv (x, w)
        y = {NORMALISE.format("c")}
    }}"""
    proto = built(text, w=numbers(4, 4, 1, 1), **norm(4))
    result, verdicts = simplified(proto)
    assert result == onnx.load_from_string(model_bytes(load_model(proto)))
    assert {each.verdict for each in verdicts.values()} == {"skipped"}


def in_branches():
    text = f"""
    g (float[1, 4, 5, 5] x, bool flag) => (float[1, 4, 5, 5] y) {{
        y = If (flag) <
            then_branch = one () => (float[1, 4, 5, 5] a) {{
                u = Transpose <perm = [1, 0, 2, 3]> (w)
                c = Conv (x, u)
                a = {NORMALISE.format("c")}
            }},
            else_branch = other () => (float[1, 4, 5, 5] b) {{ d = Conv (x, w) b = Relu(d) }}
        >
    }}"""
    proto = built(text, **norm(4))
    for place, attribute in enumerate(proto.graph.node[0].attribute):
        weight = numbers(4, 4, 1, 1, seed=place)
        attribute.g.initializer.append(numpy_helper.from_array(weight, "w"))
    return proto


def test_branches_are_simplified():
    proto = in_branches()
    result, _ = simplified(proto)
    bodies = [attribute.g for attribute in result.graph.node[0].attribute]
    assert [operators(body) for body in bodies] == [["Conv"], ["Conv", "Relu"]]
    for flag in (True, False):
        same_outputs(proto, result, x=numbers(1, 4, 5, 5), flag=np.array(flag))
