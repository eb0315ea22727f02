"""Pieces of what ONNX Runtime computes in one operator stay as they are."""

import numpy as np
import onnx
import onnxruntime
import pytest
from simplifying import built, numbers, operators, same_outputs, simplified

GELU = """
    a = MatMul (x, v) d = Div (a, root) e = Erf (d) f = Add (e, one)
    p = Mul (a, f) h = Mul (p, half)
"""
NORM = """
    m = ReduceMean <axes = [-1]> (x) c = Sub (x, m) q = Pow (c, two)
    r = ReduceMean <axes = [-1]> (q) t = Add (r, small) s = Sqrt (t) n = Div (c, s)
"""
LAYER_NORM = f"{NORM} g = Mul (n, gain) h = Add (g, shift)"
ROOT_MEAN_SQUARE = """
    q = Pow (x, two) r = ReduceMean <axes = [-1]> (q) t = Add (r, small) s = Sqrt (t)
    i = Div (one, s) n = Mul (x, i) h = Mul (n, gain)
"""
READERS = ["y = MatMul (h, w)", "y = Gemm (h, w)"]


def model(body):
    return built(
        f"g (float[3, 8] x) => (float[3, 8] y) {{ {body} }}",
        w=numbers(8, 8),
        v=numbers(8, 8, seed=1),
        gain=numbers(8),
        shift=numbers(8, seed=2),
        root=np.float32(2**0.5),
        one=np.float32(1),
        two=np.float32(2),
        half=np.float32(0.5),
        small=np.float32(1e-5),
    )


def fused(proto, folder):
    """Return the operators that ONNX Runtime makes of a model."""
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(folder / "optimized.onnx")
    onnxruntime.InferenceSession(proto.SerializeToString(), options)
    return set(operators(onnx.load(options.optimized_model_filepath).graph))


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize(
    ("body", "whole"),
    [
        (GELU, "Gelu"),
        (LAYER_NORM, "LayerNormalization"),
        (ROOT_MEAN_SQUARE, "SimplifiedLayerNormalization"),
    ],
)
def test_a_fusion_is_kept_whole(body, whole, reader, tmp_path):
    proto = model(f"{body} {reader}")
    result, _ = simplified(proto)
    assert whole in fused(proto, tmp_path)
    assert whole in fused(result, tmp_path)
    same_outputs(proto, result, x=numbers(3, 8))


@pytest.mark.parametrize(
    "body",
    [
        f"{NORM} k = Tanh (n) h = Mul (k, gain)",
        "a = MatMul (x, v) b = Tanh (a) p = Mul (a, b) h = Mul (p, half)",
        "a = MatMul (x, v) b = Erf (a) c = Mul (b, b) h = Mul (c, gain)",
        "a = MatMul (x, v) e = Tanh (a) f = Add (e, one) p = Mul (a, f) h = Mul (p, half)",
        ROOT_MEAN_SQUARE.replace("Div (one, s)", "Reciprocal (s)"),
    ],
)
def test_what_only_looks_like_one_is_folded(body):
    proto = model(f"{body} {READERS[0]}")
    result, _ = simplified(proto)
    assert len(result.graph.node) == len(proto.graph.node) - 1
    same_outputs(proto, result, x=numbers(3, 8))
