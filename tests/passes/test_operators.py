"""Weights of operators of which nothing is known but that they take some."""

import numpy as np
import pytest
from onnx import helper as h
from onnx import numpy_helper as nh

from onnxcomp import Context, Settings, compress, load_model, weights
from onnxcomp.passes import Cluster, Factorize, Prune, Quantize

MICROSOFT = "com.microsoft"

TYPES = {"ids": 7, "words": 6}
"""Of inputs that are no floats."""


def of(op, inputs, tables, domain="", **attributes):
    """Return a model of one operator: inputs, and float weights beside them."""
    random = np.random.default_rng(0)
    initializers = [
        nh.from_array(random.standard_normal(shape).astype(np.float32), name)
        for name, shape in tables.items()
    ]
    order = attributes.pop("order", [*inputs, *tables])
    outputs = ["y", "mask_index"] if op == "EmbedLayerNormalization" else ["y"]
    node = h.make_node(op, order, outputs, domain=domain, **attributes)
    given = [
        h.make_tensor_value_info(name, TYPES.get(name, 1), shape) for name, shape in inputs.items()
    ]
    graph = h.make_graph(
        [node], "one", given, [h.make_tensor_value_info("y", 1, None)], initializers
    )
    opsets = [h.make_opsetid("", 19), h.make_opsetid(MICROSOFT, 1)]
    return h.make_model(graph, opset_imports=opsets, ir_version=8)


MODELS = {
    "Einsum": of("Einsum", {"x": [4, 40]}, {"w": (40, 64)}, equation="bi,io->bo"),
    "FusedMatMul": of("FusedMatMul", {"x": [4, 40]}, {"w": (64, 40)}, MICROSOFT, transB=1),
    "FusedGemm": of("FusedGemm", {"x": [4, 40]}, {"w": (40, 64)}, MICROSOFT, activation="Relu"),
    "FusedConv": of(
        "FusedConv", {"x": [1, 8, 9, 9]}, {"w": (24, 8, 3, 3)}, MICROSOFT, activation="Relu"
    ),
    "Attention": of(
        "Attention", {"x": [1, 5, 32]}, {"w": (32, 96), "b": (96,)}, MICROSOFT, num_heads=2
    ),
    "DeformConv": of(
        "DeformConv",
        {"x": [1, 8, 5, 5], "offset": [1, 18, 3, 3]},
        {"w": (24, 8, 3, 3)},
        order=["x", "w", "offset"],
    ),
    "EmbedLayerNormalization": of(
        "EmbedLayerNormalization",
        {"words": [2, 4]},
        {"w": (64, 40), "v": (5, 40), "gamma": (40,), "beta": (40,)},
        MICROSOFT,
        order=["words", "", "w", "v", "", "gamma", "beta"],
    ),
    "MoE": of(
        "MoE",
        {"x": [4, 16], "router": [4, 2]},
        {"w": (2, 32, 16), "second": (2, 16, 32)},
        MICROSOFT,
        order=["x", "router", "w", "", "second"],
        activation_type="relu",
        k=1,
    ),
    "GatherND": of("GatherND", {"ids": [3, 1]}, {"w": (64, 40)}, order=["w", "ids"]),
    "GatherElements": of("GatherElements", {"ids": [2, 40]}, {"w": (64, 40)}, order=["w", "ids"]),
}
PASSES = [
    Cluster(),
    Prune(sparsity=0.6),
    Quantize(mode="weights"),
    Quantize(mode="weights", weight_type="int4"),
]


def samples_of(proto):
    random = np.random.default_rng(1)
    return [
        {
            each.name: random.integers(0, 2, shape)
            if each.name in TYPES
            else random.standard_normal(shape).astype(np.float32)
            for each in proto.graph.input
            for shape in [[axis.dim_value for axis in each.type.tensor_type.shape.dim]]
        }
        for _ in range(6)
    ]


@pytest.mark.parametrize("one", PASSES, ids=lambda each: f"{each.name}{each.model_fields_set}")
@pytest.mark.parametrize("op", MODELS)
@pytest.mark.parametrize("has_data", [False, True], ids=["alone", "data"])
def test_weights_become_smaller(op, one, has_data):
    proto = MODELS[op]
    data = samples_of(proto) if has_data else None
    made = compress(proto, [one], data=data, settings=Settings(bench=False))
    (step,) = made.report.steps
    assert step.status == "applied", step.reason
    large = [each.name for each in proto.graph.initializer if np.prod(each.dims) >= 256]
    assert [each.name for each in step.changed] == large
    assert made.report.output.bytes < 0.8 * made.report.source.bytes
    assert made.report.worst_snr_db > 1
    assert ("without data, since its layer" in step.changed[0].reason) == has_data


@pytest.mark.parametrize("op", MODELS)
def test_there_are_not_two_of_them(op):
    verdicts = Factorize(min_elements=1).apply(load_model(MODELS[op]), Context())
    (reason,) = {each.reason for each in verdicts if each.name == "w"}
    assert reason == f"belongs to {op}, which cannot become two"


@pytest.mark.parametrize(
    ("op", "axis"), [("Einsum", 1), ("FusedMatMul", 0), ("FusedGemm", 1), ("Attention", 1)]
)
def test_the_axis_of_the_outputs(op, axis):
    (weight,) = [each for each in weights(load_model(MODELS[op])) if each.name == "w"]
    assert weight.output_axis == axis
