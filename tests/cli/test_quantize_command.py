"""The command that quantizes: what it refuses, and statistics instead of data."""

import json

import onnx
import pytest

QUICK = ("--no-bench", "--quiet")
AGAIN = "quantized already; quantize the float model, or give --requantize"


@pytest.mark.parametrize("more", [[], ["--profile", "avx2"]])
def test_static_without_data(workplace, call, more):
    ran = call("quantize", "model.onnx", "-o", "out.onnx", *QUICK, "--mode", "static", *more)
    message = "quantize: mode = 'static' needs data; give --data, or use dynamic or weights"
    assert (ran.code, ran.out, ran.err) == (2, "", f"error: {message}\n")
    assert not (workplace / "out.onnx").exists()


def test_floats_of_8_bits_for_a_processor(workplace, call):
    given = ("--mode", "static", "--data", "samples.npz", "--activation-type", "float8e4m3fn")
    ran = call("quantize", "model.onnx", "-o", "out.onnx", *QUICK, *given)
    message = (
        "quantize: activation_type = 'float8e4m3fn' is nothing that profile cpu computes faster; "
        "give uint8 or int8, or profile tensorrt or cuda or generic"
    )
    assert (ran.code, ran.out, ran.err) == (2, "", f"error: {message}\n")
    assert not (workplace / "out.onnx").exists()
    ran = call("quantize", "model.onnx", "-o", "out.onnx", *QUICK, *given, "--profile", "tensorrt")
    assert (ran.code, ran.out) == (0, "out.onnx\n")


def test_a_model_that_is_quantized_already(workplace, call):
    given = ("--mode", "static", "--data", "samples.npz", *QUICK)
    assert call("quantize", "model.onnx", "-o", "once.onnx", *given).code == 0
    ran = call("quantize", "once.onnx", "-o", "twice.onnx", *given)
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.startswith("error: quantize: 'w")
    assert ran.err.endswith(f"{AGAIN}\n")
    assert ran.err.count("\n") == 1
    assert not (workplace / "twice.onnx").exists()
    ran = call("quantize", "once.onnx", "-o", "twice.onnx", *given, "--requantize")
    assert (ran.code, ran.out) == (0, "twice.onnx\n")


def test_static_with_statistics(workplace, call):
    call("statistics", "model.onnx", "-o", "seen.npz", "--data", "samples.npz")
    given = ("--mode", "static", "--statistics", "seen.npz", *QUICK, "--json")
    ran = call("quantize", "model.onnx", "-o", "out.onnx", *given)
    assert ran.code == 0
    (step,) = json.loads(ran.out)["steps"]
    reasons = {each["name"]: each["reason"] for each in step["tensors"]}
    assert reasons["w1"].startswith("int8, computed with integers; ")
    nodes = onnx.load(workplace / "out.onnx").graph.node
    assert "QuantizeLinear" in {node.op_type for node in nodes}
