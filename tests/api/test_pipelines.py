"""Several passes in a row, and what a compressed model says about how it was made."""

import hashlib
import json

import numpy as np
import onnx
import pytest

from onnxcomp import compare, compress, load_model, weights
from onnxcomp.errors import ModelError
from onnxcomp.passes import Cluster, Expand
from onnxcomp.pipeline import parse_recipe, recipe


@pytest.fixture
def source(models, tmp_path):
    return models["mlp"].source(tmp_path)


def metadata_of(compressed):
    return {entry.key: entry.value for entry in compressed.model.metadata_props}


def test_different_settings_for_different_layers(source, untimed):
    pipeline = [Cluster(bits=2, include=("w1",)), Cluster(bits=8, exclude=("w1",)), Expand()]
    compressed = compress(source, pipeline, settings=untimed)
    steps = compressed.report.steps
    assert [step.status for step in steps] == ["applied"] * 3
    assert [sorted(each.name for each in step.changed) for step in steps] == [
        ["w1"],
        ["w2"],
        ["w1", "w2"],
    ]
    first, second, expanded = steps
    assert first.changed[0].error > 5 * max(each.error for each in second.changed)
    assert {each.error for each in expanded.changed} == {0.0}
    original = onnx.load_from_string(source)
    assert [node.op_type for node in compressed.model.graph.node] == [
        node.op_type for node in original.graph.node
    ]


def test_expanding_keeps_every_bit(source, untimed, models):
    small = compress(source, [Cluster()], settings=untimed)
    plain = compress(small.to_bytes(), [Expand()], settings=untimed)
    assert plain.report.size_ratio < 1
    pairs = zip(weights(load_model(small.to_bytes())), weights(plain.graph), strict=True)
    for one, other in pairs:
        assert np.array_equal(one.load(), other.load())
    report = compare(small.to_bytes(), plain.to_bytes(), data=list(models["mlp"].feeds))
    assert report.validation[0].outputs[0].max_abs == 0


def test_the_metadata_replays(source, untimed):
    pipeline = [Cluster(bits=2, include=("w1",)), Cluster(bits=8, exclude=("w1",))]
    compressed = compress(source, pipeline, settings=untimed)
    written = metadata_of(compressed)
    assert written["onnxcomp.version"] == compressed.report.version
    assert written["onnxcomp.source_sha256"] == hashlib.sha256(source).hexdigest()
    assert (written["author"], written["licence"]) == ("somebody", "any")
    replayed = parse_recipe(json.loads(written["onnxcomp.recipe"]))
    assert replayed == tuple(pipeline)
    assert compress(source, replayed, settings=untimed).to_bytes() == compressed.to_bytes()


def test_only_what_was_kept_is_in_the_metadata(source, untimed, bloat):
    compressed = compress(source, [bloat, Cluster(), Cluster(include=("b1",))], settings=untimed)
    made = json.loads(metadata_of(compressed)["onnxcomp.recipe"])
    assert made == recipe([Cluster()])


def test_runs_one_after_the_other_are_one_recipe(source, untimed):
    first = compress(source, [Cluster()], settings=untimed)
    second = compress(first.to_bytes(), [Expand()], settings=untimed)
    written = metadata_of(second)
    assert json.loads(written["onnxcomp.recipe"]) == recipe([Cluster(), Expand()])
    assert written["onnxcomp.source_sha256"] == hashlib.sha256(source).hexdigest()


def test_a_recipe_in_the_metadata_that_is_none(models, untimed):
    proto = onnx.ModelProto()
    proto.CopyFrom(models["mlp"].proto)
    proto.metadata_props.add(key="onnxcomp.recipe", value="[not json")
    compressed = compress(proto, [Cluster()], settings=untimed)
    assert json.loads(metadata_of(compressed)["onnxcomp.recipe"]) == recipe([Cluster()])


def test_the_report_names_a_raised_opset(untimed):
    proto = onnx.parser.parse_model("""
        <ir_version: 3, opset_import: ["" : 6]>
        old (float[N, 40] x, float[40, 40] w) => (float[N, 40] y) { y = MatMul(x, w) }
        """)
    values = np.random.default_rng(0).standard_normal((40, 40), np.float32)
    proto.graph.initializer.append(onnx.numpy_helper.from_array(values, "w"))
    compressed = compress(proto, [Cluster()], settings=untimed)
    (step,) = compressed.report.steps
    assert (step.status, step.reason) == ("applied", "opset raised from 6 to 7")
    assert compressed.model.opset_import[0].version == 7
    nothing = compress(proto, [Cluster(exclude=("w",))], settings=untimed)
    assert nothing.model.opset_import[0].version == 6


def test_compare_with_a_model_of_another_tool(source, models):
    other = onnx.ModelProto()
    other.CopyFrom(models["mlp"].proto)
    other.graph.output[0].name = other.graph.node[-1].output[0] = "z"
    report = compare(source, other)
    assert report.validation[0].problem == "the result has no output 'y' (outputs: z)"


def test_compare_needs_an_original_that_runs(models):
    proto = onnx.ModelProto()
    proto.CopyFrom(models["mlp"].proto)
    proto.graph.node[1].op_type = "NoSuchOperator"
    with pytest.raises(ModelError, match=r"^cannot load "):
        compare(proto, models["mlp"].proto)


def test_external_data(models, tmp_path, untimed):
    path = models["external_data"].source(tmp_path)
    before = {each.name: each.read_bytes() for each in tmp_path.iterdir()}
    compressed = compress(path, [Cluster()], settings=untimed)
    (tmp_path / "out").mkdir()
    report = compressed.save(tmp_path / "out" / "small.onnx")
    written = list((tmp_path / "out").iterdir())
    assert sorted(each.suffix for each in written) == [".data", ".onnx"]
    assert report.output.bytes == sum(each.stat().st_size for each in written)
    assert report.source.bytes == sum(map(len, before.values()))
    for name, data in before.items():
        assert (tmp_path / name).read_bytes() == data
