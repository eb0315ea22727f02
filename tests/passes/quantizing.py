"""Models from a few words, quantized, and what ONNX Runtime makes of them."""

from collections import Counter

import numpy as np
import onnx
import onnxruntime

from onnxcomp import Context, load_model
from onnxcomp.graph import model_bytes
from onnxcomp.passes import Quantize
from onnxcomp.runtime import open_session, read_samples
from onnxcomp.runtime.comparison import OutputSums, worst_snr_db
from onnxcomp.testing.small_model import add_weights

FATAL = 4


def built(body, tensors, *, opset=17, ir_version=8):
    """Return a model whose graph is given in ONNX's own syntax."""
    header = f'<ir_version: {ir_version}, opset_import: ["" : {opset}]> g '
    proto = onnx.parser.parse_model(header + body)
    add_weights(proto.graph, tensors)
    return proto


def numbers(*shape, seed=0):
    return np.random.default_rng([seed, *shape]).standard_normal(shape, np.float32)


def weight(*shape, seed=0):
    """Return weights that keep activations at their size; the outputs lie on the first axis."""
    return numbers(*shape, seed=seed) / np.float32(np.sqrt(np.prod(shape[1:])))


def matrix(inputs, outputs, seed=0):
    return numbers(inputs, outputs, seed=seed) / np.float32(np.sqrt(inputs))


def feeds_of(count, seed=0, **shapes):
    return [
        {name: numbers(*shape, seed=[seed, place]) for name, shape in shapes.items()}
        for place in range(count)
    ]


def context_of(proto, feeds, **more):
    if feeds is None:
        return Context(**more)
    session = open_session(proto.SerializeToString(), threads=1)
    return Context(read_samples(list(feeds), session.inputs), **more)


def quantized(proto, feeds=None, context=None, **options):
    """Return the file of a quantized model, and the verdicts by name."""
    model = load_model(proto)
    context = context or context_of(proto, feeds)
    verdicts = Quantize(**options).apply(model, context)
    result = model_bytes(model)
    onnx.checker.check_model(result, full_check=True)
    return result, {each.name: each for each in verdicts}


def operators(model):
    """Count the operators of a file, those of bodies included."""
    return Counter(node.op_type for node in _nodes(onnx.load_from_string(model).graph))


def fused(model, folder):
    """Return what ONNX Runtime's optimiser makes of a file."""
    path = folder / "optimised.onnx"
    options = onnxruntime.SessionOptions()
    options.log_severity_level = FATAL
    options.optimized_model_filepath = str(path)
    onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    return onnx.load(path)


def fused_operators(model, folder):
    """Count the operators that ONNX Runtime's optimiser leaves, those of bodies included."""
    return Counter(node.op_type for node in _nodes(fused(model, folder).graph))


def _nodes(graph):
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                yield from _nodes(attribute.g)


def run(model, feeds, *, optimize=True):
    data = model if isinstance(model, bytes) else model.SerializeToString()
    session = open_session(data, threads=1, optimize=optimize)
    return [session.run(feed) for feed in feeds]


def snr(wanted, found):
    """Return the worst output's ratio of signal to noise, in dB."""
    sums = [OutputSums(name) for name in wanted[0]]
    for one, other in zip(wanted, found, strict=True):
        for each in sums:
            each.add(one[each.name], other[each.name])
    return worst_snr_db([each.comparison() for each in sums])


def apart(one, other):
    """Return the largest difference of two models, as a share of the range of an output."""
    worst = 0.0
    for name in one[0]:
        first, second = (
            np.concatenate([np.ravel(each[name]) for each in side]) for side in (one, other)
        )
        span = max(float(second.max()), 0.0) - min(float(second.min()), 0.0)
        worst = max(worst, float(np.abs(first - second).max()) / max(span, 1e-3))
    return worst


CONVNET = built(
    """(float[N,16,8,8] x) => (float[N,10] y) {
        c = Conv <pads = [1, 1, 1, 1]> (x, w1, b1)  r = Relu(c)
        d = Conv <pads = [1, 1, 1, 1]> (r, w2)  a = Add(d, r)  s = Relu(a)
        e = Conv(s, w3)  t = Relu(e)  p = GlobalAveragePool(t)  f = Flatten(p)
        y = Gemm <transB = 1> (f, w4, b4) }""",
    {
        "w1": weight(16, 16, 3, 3),
        "b1": numbers(16),
        "w2": weight(16, 16, 3, 3, seed=1),
        "w3": weight(32, 16, 3, 3),
        "w4": weight(10, 32),
        "b4": numbers(10),
    },
)
IMAGES = feeds_of(12, x=(2, 16, 8, 8))
