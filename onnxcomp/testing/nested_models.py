"""Small models whose weights are elsewhere: in bodies, in functions, in stores, quantized."""

from __future__ import annotations

import numpy as np
import onnx

from onnxcomp.graph import StoreValues, Weight, load_model, model_bytes, weights
from onnxcomp.stores import Codebook, store_codes
from onnxcomp.testing.plain_models import MLP
from onnxcomp.testing.small_model import (
    FEEDS,
    Random,
    SmallModel,
    add_weights,
    constant_node,
    parsed,
)


def if_bodies() -> SmallModel:
    """Branches with weights of their own, of the same name, and one that both share."""
    random = Random("if_bodies")
    text = """
    <ir_version: 8, opset_import: ["" : 17]>
    if_bodies (float[N, 40] x, bool flag) => (float[N, 40] y) {
        z = MatMul(x, shared)
        y = If (flag) <
            then_branch = one () => (float[N, 40] a) { a1 = MatMul(z, w)  a = MatMul(a1, shared) },
            else_branch = other () => (float[N, 40] b) { b1 = Tanh(z)  b = MatMul(b1, w) }
        >
    }
    """
    proto = parsed(text, {"shared": random.weight(40, 40)})
    for attribute in proto.graph.node[1].attribute:
        add_weights(attribute.g, {"w": random.weight(40, 40)})
    feeds = tuple(
        {"x": random.floats(3, 40), "flag": np.array(bool(place % 2))} for place in range(FEEDS)
    )
    return SmallModel("if_bodies", proto, feeds)


def loop_body() -> SmallModel:
    """A loop over weights inside its body and outside."""
    random = Random("loop_body")
    text = """
    <ir_version: 8, opset_import: ["" : 17]>
    loop_body (float[N, 40] x) => (float[N, 40] y) {
        count = Constant <value = int64 {3}> ()
        go = Constant <value = bool {1}> ()
        y = Loop (count, go, x) <
            body = step (int64 i, bool before, float[N, 40] s) => (bool after, float[N, 40] t) {
                after = Identity(before)
                u = MatMul(s, inside)
                v = Tanh(u)
                t = MatMul(v, outside)
            }
        >
    }
    """
    proto = parsed(text, {"outside": random.weight(40, 40)})
    add_weights(proto.graph.node[2].attribute[0].g, {"inside": random.weight(40, 40)})
    return SmallModel("loop_body", proto, random.feeds("x", 2, 40))


def local_functions() -> SmallModel:
    """Functions that are passed weights, or hold some."""
    random = Random("local_functions")
    text = """
    <ir_version: 8, opset_import: ["" : 17, "local" : 1]>
    local_functions (float[N, 40] x) => (float[N, 40] y) {
        a = local.dense(x, w1)
        b = local.fixed(a)
        y = local.dense(b, w2)
    }
    <domain: "local", opset_import: ["" : 17]>
    dense (x, w) => (y) { h = MatMul(x, w)  y = Tanh(h) }
    <domain: "local", opset_import: ["" : 17]>
    fixed (x) => (y) { y = MatMul(x, w) }
    """
    proto = parsed(text, {"w1": random.weight(40, 40), "w2": random.weight(40, 40)})
    proto.functions[1].node.insert(0, constant_node("w", random.weight(40, 40)))
    return SmallModel("local_functions", proto, random.feeds("x", 3, 40))


def classical() -> SmallModel:
    """Operators of ai.onnx.ml, which give out a list of maps, after a dense layer."""
    random = Random("classical")
    text = """
    <ir_version: 8, opset_import: ["" : 17, "ai.onnx.ml" : 3]>
    classical (float[N, 40] x) => (int64[N] label, seq(map(int64, float)) scores) {
        h = MatMul(x, w)
        r = Relu(h)
    }
    """
    proto = parsed(text, {"w": random.weight(40, 32)})
    domain = "ai.onnx.ml"
    classifier = onnx.helper.make_node(
        "LinearClassifier",
        ["r"],
        ["label", "probabilities"],
        domain=domain,
        coefficients=random.weight(3, 32).reshape(-1).tolist(),
        intercepts=[0.0, 0.1, -0.1],
        classlabels_ints=[0, 1, 2],
        post_transform="SOFTMAX",
    )
    zipped = onnx.helper.make_node(
        "ZipMap", ["probabilities"], ["scores"], domain=domain, classlabels_int64s=[0, 1, 2]
    )
    proto.graph.node.extend([classifier, zipped])
    return SmallModel("classical", proto, random.feeds("x", 3, 40))


def quantized() -> SmallModel:
    """Weights and activations that are int8 already."""
    random = Random("quantized")
    text = """
    <ir_version: 8, opset_import: ["" : 17]>
    quantized (float[N, 40] x) => (float[N, 40] y) {
        xq = QuantizeLinear(x, x_scale, x_zero)
        xd = DequantizeLinear(xq, x_scale, x_zero)
        w = DequantizeLinear <axis = 1> (w_int8, w_scale, w_zero)
        h = MatMul(xd, w)
        hq = QuantizeLinear(h, y_scale, x_zero)
        y = DequantizeLinear(hq, y_scale, x_zero)
    }
    """
    w = random.weight(40, 40)
    scale = np.abs(w).max(axis=0) / np.float32(127)
    proto = parsed(
        text,
        {
            "x_scale": np.array(0.03, np.float32),
            "x_zero": np.array(128, np.uint8),
            "w_int8": np.rint(w / scale).astype(np.int8),
            "w_scale": scale,
            "w_zero": np.zeros(40, np.int8),
            "y_scale": np.array(0.04, np.float32),
        },
    )
    return SmallModel("quantized", proto, random.feeds("x", 3, 40))


def stored() -> SmallModel:
    """Weights of which onnxcomp itself has made codes and codebooks."""
    random = Random("stored")
    text = MLP.replace("(float[4, 32] x)", "(int64[4] ids)").replace(
        "a = Gemm", "x = Gather(table, ids)\n    a = Gemm"
    )
    proto = parsed(
        text,
        {
            "table": random.weight(60, 32),
            "w1": random.weight(48, 32),
            "b1": random.floats(48),
            "w2": random.weight(48, 40),
            "b2": random.floats(40),
            "w3": random.weight(40, 10),
            "b3": random.floats(10),
        },
    )
    model = load_model(proto)
    for weight in weights(model):
        clusters = {"table": 16, "w1": 16, "w2": 8}.get(weight.name)
        if clusters is not None:
            _store(weight, clusters)
    feeds = tuple({"ids": random.integers(60, 4)} for _ in range(FEEDS))
    return SmallModel("stored", onnx.load_from_string(model_bytes(model)), feeds)


def _store(weight: Weight, clusters: int) -> None:
    """Store a weight as codes of evenly spaced values."""
    values = weight.load()
    entries = np.linspace(values.min(), values.max(), clusters, dtype=np.float32)
    codes = np.abs(values.reshape(-1, 1) - entries).argmin(axis=1).astype(np.uint8)
    store = store_codes(
        codes,
        Codebook(entries[:, None]),
        shape=values.shape,
        dtype=values.dtype,
        opset=weight.opset,
    )
    weight.tensor.values = StoreValues(store)
