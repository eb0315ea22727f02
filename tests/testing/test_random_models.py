"""Random models are valid, run, and are the same for the same seed."""

import numpy as np
import onnx
import pytest

from onnxcomp.runtime import open_session
from onnxcomp.testing import random_feeds, random_model

LARGEST = 1e4


@pytest.mark.parametrize("seed", range(25))
def test_models_are_valid_and_run(seed):
    model = random_model(seed)
    onnx.checker.check_model(model, full_check=True)
    session = open_session(model.SerializeToString(), threads=1)
    for feed in random_feeds(model, seed, 2):
        for output in session.run(feed).values():
            assert np.isfinite(output).all()
            assert np.abs(output).max() < LARGEST


def test_the_seed_decides():
    first, again, other = (random_model(seed) for seed in (3, 3, 4))
    assert first == again
    assert first != other
    for one, two in zip(random_feeds(first, 5, 3), random_feeds(again, 5, 3), strict=True):
        np.testing.assert_equal(one, two)


def test_models_are_of_many_kinds():
    models = [random_model(seed) for seed in range(100)]
    graphs = [model.graph for model in models]
    graphs += [
        each.g
        for graph in graphs
        for node in graph.node
        for each in node.attribute
        if each.HasField("g")
    ]
    nodes = [node for graph in graphs for node in graph.node]
    held = [each for graph in graphs for each in graph.initializer]
    operators = {node.op_type for node in nodes}
    assert {"Conv", "ConvTranspose", "Gemm", "MatMul", "If", "Concat", "Softmax"} <= operators
    assert {"BatchNormalization", "LayerNormalization", "MaxPool", "AveragePool"} <= operators
    assert {model.opset_import[0].version for model in models} == set(range(11, 22))
    assert "Constant" in operators
    assert {1, 2, 3, 4} <= {len(each.dims) for each in held}
    batches = [graph.input[0].type.tensor_type.shape.dim[0] for graph in graphs[:100]]
    assert {each.WhichOneof("value") for each in batches} == {"dim_param", "dim_value"}
