"""Models from a few words, simplified."""

import numpy as np
import onnx
from onnx import numpy_helper

from onnxcomp import Context, load_model
from onnxcomp.graph import model_proto
from onnxcomp.passes import Simplify
from onnxcomp.runtime import open_session

HEADER = '<ir_version: 8, opset_import: ["" : {opset}]>'
NORMALISE = "BatchNormalization <epsilon = 0.01> ({}, gain, shift, mean, variance)"


def built(text, opset=17, **tensors):
    proto = onnx.parser.parse_model(HEADER.format(opset=opset) + text)
    proto.graph.initializer.extend(
        numpy_helper.from_array(np.asarray(values), name) for name, values in tensors.items()
    )
    return proto


def numbers(*shape, seed=0):
    return np.random.default_rng([seed, *shape]).standard_normal(shape, np.float32)


def norm(channels):
    return {
        "gain": 1 + numbers(channels, seed=1),
        "shift": numbers(channels, seed=2),
        "mean": numbers(channels, seed=3),
        "variance": np.square(numbers(channels, seed=4)),
    }


def simplified(proto, **options):
    model = load_model(proto)
    verdicts = Simplify(**options).apply(model, Context())
    return model_proto(model), {each.name: each for each in verdicts}


def run(proto, feed):
    session = open_session(proto.SerializeToString(), optimize=False, threads=1)
    return list(session.run(feed).values())


def same_outputs(proto, result, **feed):
    onnx.checker.check_model(result, full_check=True)
    for one, other in zip(run(proto, feed), run(result, feed), strict=True):
        np.testing.assert_allclose(other, one, rtol=1e-4, atol=1e-5 * np.abs(one).max())


def operators(graph):
    return [node.op_type for node in graph.node if node.op_type != "Constant"]


def conv_model(layer, weight, channels, opset=17, **more):
    text = f"""
    g (float[1, 6, 5, 5] x) => (float[N, C, H, W] y) {{
        c = {layer}
        y = {NORMALISE.format("c")}
    }}"""
    return built(text, opset, w=weight, **norm(channels), **more)
