"""Which operators are others, and in how many places."""

import numpy as np
import onnx
import pytest

from onnxcomp.graph import load_model
from onnxcomp.report import graph_change
from onnxcomp.report.graph_changes import Resized, Rewrite
from onnxcomp.testing import small_models

MODELS = {model.name: model for model in small_models()}


def model(text, **weights):
    """Return a model from ONNX's textual form, with weights of zeros of the given shapes."""
    proto = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["" : 13]> {text}')
    for name, shape in weights.items():
        array = np.zeros(shape, np.float32)
        proto.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    return load_model(proto)


@pytest.mark.parametrize("name", sorted(MODELS))
def test_a_model_and_itself(name, tmp_path):
    read = load_model(MODELS[name].source(tmp_path))
    change = graph_change(read, read)
    assert (change.rewrites, change.resized) == ((), ())
    assert change.operators_before == change.operators_after
    assert sum(change.operators_before.values()) == read.count_nodes()


def test_a_folded_operator():
    before = model("g (float[4] x) => (float[4] y) { a = Relu(x) b = Mul(a, a) y = Abs(b) }")
    after = model("g (float[4] x) => (float[4] y) { a = Relu(x) y = Abs(a) }")
    change = graph_change(before, after)
    assert change.rewrites == (Rewrite(before=("Mul", "Abs"), after=("Abs",), places=("b",)),)
    assert change.operators_before == {"Relu": 1, "Mul": 1, "Abs": 1}
    assert change.operators_after == {"Relu": 1, "Abs": 1}


def test_the_same_rewrite_in_several_places():
    layer = "{0}q = QuantizeLinear({0}, s, z) {0}d = DequantizeLinear({0}q, s, z)"
    start = "g (float[4] x) => (float[4] y) <float s = {0.1}, uint8 z = {0}> { "
    before = model(start + "a = Relu(x) b = Relu(a) y = Abs(b) }")
    after = model(
        f"{start} {layer.format('x')} a = Relu(xd) {layer.format('a')} b = Relu(ad) y = Abs(b) }}"
    )
    [rewrite] = graph_change(before, after).rewrites
    assert rewrite.before == ("Relu",)
    assert rewrite.after == ("QuantizeLinear", "DequantizeLinear", "Relu")
    assert rewrite.places == ("a", "b")


def test_an_operator_of_another_size():
    text = "g (float[2, 4] x) => (float[2, N] y) { y = MatMul(x, w) }"
    change = graph_change(model(text, w=(4, 6)), model(text, w=(4, 3)))
    assert change.rewrites == ()
    assert change.resized == (
        Resized(name="y", op_type="MatMul", before=((4, 6),), after=((4, 3),)),
    )


def test_a_name_alone_is_no_change():
    text = "g (float[4] x) => (float[4] y) { m = Relu(x) y = Abs(m) }"
    change = graph_change(model(text), model(text.replace("m", "n")))
    assert (change.rewrites, change.resized) == ((), ())
