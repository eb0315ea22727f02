"""Types of activations: how exact they are, what they need, and which profiles compute them."""

import onnx
import pytest
from quantizing import CONVNET, IMAGES, apart, built, fused_operators, quantized, run, snr, weight

from onnxcomp.errors import OptionError
from onnxcomp.passes import Quantize

PARTS = {"mode": "static", "keep_float": "0", "ranges": "minmax"}


def activation_types(model):
    """Return the element types of the codes that a model rounds to."""
    proto = onnx.load_from_string(model)
    held = {each.name: each.data_type for each in proto.graph.initializer}
    nodes = [node for node in proto.graph.node if node.op_type == "QuantizeLinear"]
    # Floats are named; integers are what their zero point is.
    numbers = {held[node.input[2]] if node.input[2:] else node.attribute[0].i for node in nodes}
    return {onnx.TensorProto.DataType.Name(number).lower() for number in numbers}


@pytest.mark.parametrize(
    ("kind", "least", "opset"),
    [
        *[("uint8", 50, 17), ("int8", 48, 17), ("uint16", 90, 21), ("int16", 90, 21)],
        *[("float8e4m3fn", 43, 21), ("float8e5m2", 36, 21)],
    ],
)
def test_what_rounding_activations_costs(kind, least, opset):
    result, _ = quantized(CONVNET, IMAGES, profile="generic", activation_type=kind, **PARTS)
    stored, _ = quantized(CONVNET, IMAGES, mode="weights")
    assert activation_types(result) == {kind}
    assert onnx.load_from_string(result).opset_import[0].version == opset
    # The same weights with float activations: the rest is what activations cost.
    assert snr(run(stored, IMAGES), run(result, IMAGES)) > least
    assert apart(run(result, IMAGES), run(result, IMAGES, optimize=False)) < 0.01


@pytest.mark.parametrize("kind", ["uint8", "int8"])
def test_both_types_of_8_bits_are_fused(kind, tmp_path):
    # Behind a Relu, which no symmetric grid does the work of, ONNX Runtime fuses uint8 only.
    proto = built(
        "(float[N,16,8,8] x) => (float[N,32,6,6] y) { c = Conv(x, w)  y = Sigmoid(c) }",
        {"w": weight(32, 16, 3, 3)},
    )
    result, _ = quantized(proto, IMAGES, activation_type=kind, **PARTS)
    assert fused_operators(result, tmp_path)["QLinearConv"] == 1


@pytest.mark.parametrize(
    ("profile", "kind"), [("cpu", "uint8"), ("openvino", "uint8"), ("tensorrt", "int8")]
)
def test_the_type_that_a_profile_computes_fastest(profile, kind):
    chosen, _ = quantized(CONVNET, IMAGES, profile=profile, **PARTS)
    named, _ = quantized(CONVNET, IMAGES, profile=profile, activation_type=kind, **PARTS)
    assert chosen == named
    assert activation_types(chosen) == {kind}


def test_ranges_are_measured_finely_enough_for_16_bits():
    options = {**PARTS, "ranges": "output", "profile": "generic", "activation_type": "uint16"}
    result, _ = quantized(CONVNET, IMAGES, **options)
    stored, _ = quantized(CONVNET, IMAGES, mode="weights")
    assert snr(run(stored, IMAGES), run(result, IMAGES)) > 90


@pytest.mark.parametrize(
    ("profile", "kind", "others", "profiles"),
    [
        ("cpu", "uint16", "uint8 or int8", "openvino or generic"),
        (
            "tensorrt",
            "uint8",
            "int8 or float8e4m3fn",
            "cpu or avx2 or openvino or cuda or generic",
        ),
        ("cpu", "float8e4m3fn", "uint8 or int8", "tensorrt or cuda or generic"),
        ("openvino", "float8e5m2", "uint8 or int8 or uint16 or int16", "cuda or generic"),
        ("tensorrt", "float8e5m2", "int8 or float8e4m3fn", "cuda or generic"),
    ],
)
def test_types_that_a_profile_does_not_compute(profile, kind, others, profiles):
    with pytest.raises(OptionError) as raised:
        Quantize(profile=profile, activation_type=kind)
    assert str(raised.value) == (
        f"quantize: activation_type = {kind!r} is nothing that profile {profile} computes faster; "
        f"give {others}, or profile {profiles}"
    )
