"""`Cluster` on whole models: what it skips, what it shares, what it writes."""

import os
import subprocess
import sys

import numpy as np
import onnx
import pytest

from onnxcomp import Context, compress, load_model, weights
from onnxcomp.graph import model_bytes, store_of
from onnxcomp.passes import Cluster, Expand
from onnxcomp.runtime import open_session
from onnxcomp_passes.cluster import cluster as module

RANDOM = np.random.default_rng(0)
WEIGHT = RANDOM.standard_normal((40, 40), np.float32)


def parsed(text, values):
    proto = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["" : 17]> {text}')
    for name, each in values.items():
        proto.graph.initializer.append(onnx.numpy_helper.from_array(each, name))
    return proto


def reasons(proto, **options):
    verdicts = Cluster(**options).apply(load_model(proto), Context())
    return {each.name: each.reason for each in verdicts}


def chain(**values):
    """Return a model that multiplies with each weight in turn."""
    steps = [f"h{place} = MatMul(h{place - 1}, {name})" for place, name in enumerate(values, 1)]
    steps[0] = steps[0].replace("h0", "x")
    text = f"""chain (float[N, 40] x) => (float[N, 40] y)
        {{ {" ".join(steps)} y = Tanh(h{len(values)}) }}"""
    return parsed(text, values)


def if_model(first, second):
    proto = parsed(
        """
        branches (float[N, 40] x, bool flag) => (float[N, 40] y) {
            w_ = Relu(x)
            y = If (flag) <
                then_branch = one () => (float[N, 40] a) { a = MatMul(w_, w) },
                else_branch = other () => (float[N, 40] b) { b = MatMul(x, w) }
            >
        }
        """,
        {},
    )
    for attribute, values in zip(proto.graph.node[1].attribute, (first, second), strict=True):
        attribute.g.initializer.append(onnx.numpy_helper.from_array(values, "w"))
    return proto


def test_what_is_left_alone_and_why(models):
    assert reasons(models["convnet"].proto) == {
        "first": "16 clusters, a scale per channel",
        "depthwise": "belongs to a depthwise convolution",
        "grouped": "16 clusters, a scale per channel",
        "transposed": "16 clusters, a scale per channel",
        "head": "16 clusters, a scale per channel",
        **dict.fromkeys(("gain", "shift", "mean", "variance"), "belongs to a normalisation"),
        **dict.fromkeys(("bias", "head_bias"), "is a bias"),
    }
    asked = reasons(models["convnet"].proto, depthwise=True, min_elements=1000)
    assert asked["depthwise"] == "is tiny (288 elements)"
    assert asked["head"] == "is tiny (480 elements)"
    assert reasons(models["convnet"].proto, depthwise=True)["depthwise"].startswith("16 clusters")


def test_what_is_quantized_already(models):
    found = reasons(models["quantized"].proto)
    assert found["w_int8"] == "is quantized already"
    assert "w_int8" in found


def test_what_a_caller_may_override():
    proto = chain(w=WEIGHT)
    proto.graph.input.append(
        onnx.helper.make_tensor_value_info("w", onnx.TensorProto.FLOAT, (40, 40))
    )
    assert reasons(proto) == {"w": "is also a graph input, which a caller may override"}


def test_what_would_not_be_smaller():
    found = reasons(chain(w=WEIGHT), clusters=256, granularity="group", group_size=1)
    assert found["w"].startswith("would not be smaller (6400 bytes, ")


def test_what_is_too_large_to_be_folded(monkeypatch):
    monkeypatch.setattr(module, "FOLDING_LIMIT", 6399)
    found = reasons(chain(w=WEIGHT))
    assert found["w"] == "is larger than 1 GiB, and ONNX Runtime folds nothing that large"


@pytest.mark.parametrize("granularity", ["scale", "tensor"])
def test_one_codebook_for_the_model(granularity):
    proto = chain(one=WEIGHT, two=3 * RANDOM.standard_normal((40, 40), np.float32))
    model = load_model(proto)
    verdicts = Cluster(share="model", granularity=granularity).apply(model, Context())
    assert all(each.reason.startswith("the model's 16 clusters") for each in verdicts)
    one, two = (store_of(weight.tensor).codebook for weight in weights(model))
    assert np.array_equal(one.entries, two.entries)
    if granularity == "scale":
        owned = load_model(proto)
        Cluster().apply(owned, Context())
        assert len(model_bytes(model)) < len(model_bytes(owned))


def test_identical_weights_become_one():
    proto = chain(a=WEIGHT, b=WEIGHT.copy(), c=-WEIGHT, d=WEIGHT.copy())
    model = load_model(proto)
    found = {each.name: each for each in Cluster().apply(model, Context())}
    assert found["b"].reason == found["d"].reason == "identical to a"
    assert (found["b"].bytes_before, found["b"].bytes_after, found["b"].error) == (6400, 0, 0)
    assert [weight.name for weight in weights(model)] == ["a", "c"]
    assert len(found) == 4


def test_what_was_not_selected_is_not_shared():
    found = reasons(chain(a=WEIGHT, b=WEIGHT.copy()), exclude=("b",))
    assert found["b"] == "was not selected by include and exclude"
    assert found["a"].startswith("16 clusters")


def test_equal_bytes_of_another_shape_are_not_identical():
    proto = parsed(
        """shapes (float[N, 40] x, float[N, 20] z) => (float[N, 40] y, float[N, 80] t)
        { y = MatMul(x, a) t = MatMul(z, b) }""",
        {"a": WEIGHT, "b": WEIGHT.reshape(20, 80)},
    )
    assert all("clusters" in each for each in reasons(proto).values())


def test_identical_weights_of_two_branches(untimed):
    proto = if_model(WEIGHT, WEIGHT.copy())
    feeds = [
        {"x": RANDOM.standard_normal((2, 40), np.float32), "flag": np.array(f)}
        for f in (True, False)
    ]
    compressed = compress(proto, [Cluster()], data=feeds, settings=untimed)
    (step,) = compressed.report.steps
    assert step.status == "applied"
    assert sorted(each.bytes_after > 0 for each in step.changed) == [False, True]
    assert len(list(weights(compressed.graph))) == 1
    apart = compress(if_model(WEIGHT, -WEIGHT), [Cluster()], data=feeds, settings=untimed)
    assert len(list(weights(apart.graph))) == 2
    assert compressed.report.output.bytes < apart.report.output.bytes
    exact = compress(proto, [Cluster(), Expand()], data=feeds, settings=untimed)
    assert exact.report.validation[0].problem is None


def test_identical_weights_outside_and_inside_a_branch(untimed):
    proto = if_model(WEIGHT, -WEIGHT)
    proto.graph.node[0].CopyFrom(onnx.helper.make_node("MatMul", ["x", "outer"], ["w_"]))
    proto.graph.initializer.append(onnx.numpy_helper.from_array(WEIGHT, "outer"))
    feed = {
        "x": RANDOM.standard_normal((2, 40), np.float32),
        "flag": np.array(object=1, dtype=bool),
    }
    (step,) = compress(proto, [Cluster()], data=[feed], settings=untimed).report.steps
    assert step.status == "applied"
    assert {each.reason for each in step.changed} == {
        "identical to outer",
        "16 clusters, a scale per channel; error feedback, mean corrected",
        "16 clusters, a scale per channel; without data, since no sample runs its layer",
    }


@pytest.mark.parametrize("seed", [0, 1])
def test_the_seed_is_all_the_randomness(seed):
    passes = Cluster(bits=2, width=4)
    files = set()
    for _ in range(2):
        model = load_model(chain(a=WEIGHT, b=-WEIGHT))
        passes.apply(model, Context(seed=seed))
        files.add(model_bytes(model))
    assert len(files) == 1


def test_an_embedding_is_gathered_before_it_is_decoded():
    table = RANDOM.standard_normal((200, 32), np.float32)
    proto = parsed(
        "lookup (int64[N, L] ids) => (float[N, L, 32] y) { y = Gather(table, ids) }",
        {"table": table},
    )
    model = load_model(proto)
    Cluster(bits=4).apply(model, Context())
    data = model_bytes(model)
    written = onnx.load_from_string(data)
    readers = [node for node in written.graph.node if "table" in node.input]
    assert [(node.op_type, list(node.input)) for node in readers] == [("Gather", ["table", "ids"])]
    ids = RANDOM.integers(200, size=(3, 5))
    (weight,) = weights(model)
    got = open_session(data).run({"ids": ids})["y"]
    assert np.array_equal(got, weight.load()[ids])


THREADED = """
import numpy, onnx, hashlib
from onnxcomp import Context, load_model
from onnxcomp.graph import model_bytes
from onnxcomp.passes import Cluster
values = numpy.random.default_rng(0).standard_normal((512, 512), numpy.float32)
text = "lone (float[N, 512] x) => (float[N, 512] y) { y = MatMul(x, w) }"
proto = onnx.parser.parse_model('<ir_version: 8, opset_import: ["" : 17]> ' + text)
proto.graph.initializer.append(onnx.numpy_helper.from_array(values, "w"))
for options in ({}, {"bits": 2, "width": 4}, {"bits": 4, "width": 2}, {"granularity": "group"}):
    model = load_model(proto)
    Cluster(**options).apply(model, Context())
    print(hashlib.sha256(model_bytes(model)).hexdigest())
"""


def test_another_number_of_threads_gives_the_same_bytes():
    printed = set()
    for threads in ("1", "2"):
        names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
        done = subprocess.run(
            [sys.executable, "-c", THREADED],
            env=os.environ | dict.fromkeys(names, threads),
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout.count("\n") == 4
        printed.add(done.stdout)
    assert len(printed) == 1
