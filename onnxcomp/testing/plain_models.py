"""Small models of the usual kinds: layers of various types in one graph."""

from __future__ import annotations

import numpy as np
import onnx

from onnxcomp.testing.small_model import (
    FEEDS,
    Random,
    SmallModel,
    constant_node,
    parsed,
)

MLP = """
<ir_version: 8, opset_import: ["" : 17]>
mlp (float[4, 32] x) => (float[4, 10] y) {
    a = Gemm <transB = 1> (x, w1, b1)
    b = Relu(a)
    c = MatMul(b, w2)
    d = Add(c, b2)
    e = Relu(d)
    y = Gemm(e, w3, b3)
}
"""


def mlp() -> SmallModel:
    """Three dense layers: Gemm both ways round, and MatMul."""
    random = Random("mlp")
    return SmallModel("mlp", parsed(MLP, _dense(random)), random.feeds("x", 4, 32))


def dynamic_batch() -> SmallModel:
    """A batch of any size."""
    random = Random("dynamic_batch")
    text = MLP.replace("float[4,", "float[batch,")
    feeds = tuple({"x": random.floats(size, 32)} for size in (1, 2, 5))
    return SmallModel("dynamic_batch", parsed(text, _dense(random)), feeds)


BLOCKS = """
<ir_version: 8, opset_import: ["" : 17]>
blocks (float[batch, 16] x) => (float[batch, 16] y) {
    a = MatMul(x, w1)  b = Add(a, zeros)  c = Relu(b)  d = MatMul(c, w2)  e = Add(d, x)
    f = MatMul(e, w3)  g = Add(f, zeros)  h = Relu(g)  i = MatMul(h, w4)  y = Add(i, e)
}
"""


def shared_bias() -> SmallModel:
    """Two blocks whose first layers read one bias, as exporters write equal ones."""
    random = Random("shared_bias")
    shapes = {"w1": (16, 48), "w2": (48, 16), "w3": (16, 48), "w4": (48, 16)}
    weights = {name: random.floats(*shape) / 4 for name, shape in shapes.items()}
    weights["zeros"] = np.zeros(48, np.float32)
    return SmallModel("shared_bias", parsed(BLOCKS, weights), random.feeds("x", 4, 16))


def external_data() -> SmallModel:
    """Weights in a file beside the model."""
    random = Random("external_data")
    proto = parsed(MLP, _dense(random))
    return SmallModel("external_data", proto, random.feeds("x", 4, 32), is_external=True)


def opset_9() -> SmallModel:
    """Opset 9 and IR version 3, in which every initializer is listed as an input too."""
    random = Random("opset_9")
    weights = _dense(random)
    proto = parsed(MLP.replace("17", "9").replace("ir_version: 8", "ir_version: 3"), weights)
    proto.graph.input.extend(
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, values.shape)
        for name, values in weights.items()
    )
    return SmallModel("opset_9", proto, random.feeds("x", 4, 32))


def constant_nodes() -> SmallModel:
    """Weights in Constant nodes, as some exporters leave them."""
    random = Random("constant_nodes")
    proto = parsed(MLP, {})
    nodes = [constant_node(name, values) for name, values in _dense(random).items()]
    computing = list(proto.graph.node)
    del proto.graph.node[:]
    proto.graph.node.extend([*nodes, *computing])
    return SmallModel("constant_nodes", proto, random.feeds("x", 4, 32))


def float16() -> SmallModel:
    """Weights, inputs and outputs in float16."""
    random = Random("float16")
    weights = {name: values.astype(np.float16) for name, values in _dense(random).items()}
    feeds = tuple({"x": feed["x"].astype(np.float16)} for feed in random.feeds("x", 4, 32))
    return SmallModel("float16", parsed(MLP.replace("float[", "float16["), weights), feeds)


def convnet() -> SmallModel:
    """Convolutions: plain, depthwise, grouped and transposed, with normalisation."""
    random = Random("convnet")
    text = """
    <ir_version: 8, opset_import: ["" : 17]>
    convnet (float[N, 3, 8, 8] image) => (float[N, 10] logits, float[N, 8, 16, 16] map) {
        a = Conv <kernel_shape = [3, 3], pads = [1, 1, 1, 1]> (image, first)
        n = BatchNormalization (a, gain, shift, mean, variance)
        r = Relu(n)
        d = Conv <kernel_shape = [3, 3], pads = [1, 1, 1, 1], group = 32> (r, depthwise)
        g = Conv <kernel_shape = [3, 3], pads = [1, 1, 1, 1], group = 4> (d, grouped, bias)
        s = Relu(g)
        map = ConvTranspose <kernel_shape = [2, 2], strides = [2, 2]> (s, transposed)
        p = GlobalAveragePool(s)
        f = Flatten(p)
        logits = Gemm <transB = 1> (f, head, head_bias)
    }
    """
    weights = {
        "first": random.weight(32, 3, 3, 3),
        "gain": 1 + 0.1 * random.floats(32),
        "shift": random.floats(32),
        "mean": random.floats(32),
        "variance": 1 + 0.1 * np.abs(random.floats(32)),
        "depthwise": random.weight(32, 1, 3, 3),
        "grouped": random.weight(48, 8, 3, 3),
        "bias": random.floats(48),
        "transposed": random.weight(48, 8, 2, 2),
        "head": random.weight(10, 48),
        "head_bias": random.floats(10),
    }
    return SmallModel("convnet", parsed(text, weights), random.feeds("image", 2, 3, 8, 8))


def overridable() -> SmallModel:
    """Initializers that are inputs too: a caller may feed other values."""
    random = Random("overridable")
    text = """
    <ir_version: 8, opset_import: ["" : 17]>
    overridable (float[N, 16, 8, 8] image) => (float[N, 10] logits) {
        a = Conv <pads = [1, 1, 1, 1]> (image, first, bias)
        n = BatchNormalization (a, gain, shift, mean, variance)
        r = Relu(n)
        s = Conv <pads = [1, 1, 1, 1]> (r, second)
        m = BatchNormalization (s, gains, shifts, means, variances)
        p = GlobalAveragePool(m)
        f = Flatten(p)
        g = Gemm <transB = 1> (f, third, third_bias)
        t = Tanh(g)
        h = MatMul (t, fourth)
        b = Add (h, addend)
        logits = MatMul (b, free)
    }
    """
    weights = {
        "first": random.weight(16, 16, 3, 3),
        "second": random.weight(32, 16, 3, 3),
        "third": random.weight(48, 32),
        "fourth": random.weight(48, 32),
        "free": random.weight(32, 10),
        **{name: random.floats(16) for name in ("bias", "gain", "shift", "mean")},
        **{name: random.floats(32) for name in ("gains", "shifts", "means", "addend")},
        "variance": 1 + random.floats(16) ** 2,
        "variances": 1 + random.floats(32) ** 2,
        "third_bias": random.floats(48),
    }
    proto = parsed(text, weights)
    proto.graph.input.extend(
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, weights[name].shape)
        for name in ("bias", "variances", "third_bias", "addend", "free")
    )
    return SmallModel("overridable", proto, random.feeds("image", 2, 16, 8, 8))


def tied() -> SmallModel:
    """An embedding that is also the output layer, and a matrix that two layers use."""
    random = Random("tied")
    text = """
    <ir_version: 10, opset_import: ["" : 21]>
    tied (int64[N, L] ids) => (float[N, L, 60] scores) {
        h = Gather(embedding, ids)
        a = MatMul(h, twice)
        b = Tanh(a)
        c = MatMul(b, twice)
        turned = Transpose <perm = [1, 0]> (embedding)
        scores = MatMul(c, turned)
    }
    """
    weights = {"embedding": random.weight(60, 40), "twice": random.weight(40, 40)}
    feeds = tuple({"ids": random.integers(60, 2, 7)} for _ in range(FEEDS))
    return SmallModel("tied", parsed(text, weights), feeds)


def recurrent() -> SmallModel:
    """An LSTM in both directions and a GRU."""
    random = Random("recurrent")
    text = """
    <ir_version: 8, opset_import: ["" : 17]>
    recurrent (float[L, N, 24] x) => (float[L, 1, N, 32] y, float[1, N, 32] last) {
        a = LSTM <hidden_size = 16, direction = "bidirectional"> (x, lstm_w, lstm_r, lstm_b)
        b = Transpose <perm = [0, 2, 1, 3]> (a)
        c = Reshape(b, join)
        y, last = GRU <hidden_size = 32, linear_before_reset = 1> (c, gru_w, gru_r, gru_b)
    }
    """
    weights = {
        "lstm_w": random.weight(2, 64, 24),
        "lstm_r": random.weight(2, 64, 16),
        "lstm_b": random.floats(2, 128),
        "join": np.array([0, 0, 32]),
        "gru_w": random.weight(1, 96, 32),
        "gru_r": random.weight(1, 96, 32),
        "gru_b": random.floats(1, 192),
    }
    return SmallModel("recurrent", parsed(text, weights), random.feeds("x", 5, 2, 24))


def no_weights() -> SmallModel:
    """Nothing to compress."""
    random = Random("no_weights")
    text = """
    <ir_version: 8, opset_import: ["" : 17]>
    no_weights (float[N, 8] x) => (float[N, 8] y) { a = Softmax(x)  y = Mul(a, x) }
    """
    return SmallModel("no_weights", parsed(text, {}), random.feeds("x", 3, 8))


def _dense(random: Random) -> dict[str, np.ndarray]:
    return {
        "w1": random.weight(48, 32),
        "b1": random.floats(48),
        "w2": random.weight(48, 40),
        "b2": random.floats(40),
        "w3": random.weight(40, 10),
        "b3": random.floats(10),
    }
