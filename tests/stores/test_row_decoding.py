"""Embeddings: the codes are gathered first, and only the gathered rows are decoded."""

import numpy as np
import onnx
import pytest
from building_blocks import make_store, read_by, run, with_store
from onnx import helper as h
from onnx import numpy_helper as nh

from onnxcomp import Context
from onnxcomp.graph import load_model, model_bytes, store_of
from passes import Expand

SHAPE = (50, 16)


def gather(store, indices_rank=2, *, axis=0, indices=None):
    """Return a model with one Gather, and its feed."""
    proto, feed = read_by("Gather", store)
    shape = (2, 3)[:indices_rank]
    feed["x"] = np.arange(0, 3 * int(np.prod(shape)), 3).reshape(shape)
    proto.graph.input[0].CopyFrom(
        h.make_tensor_value_info("x", onnx.TensorProto.INT64, [None] * indices_rank)
    )
    proto.graph.output[0].CopyFrom(h.make_tensor_value_info("y", 1, [None] * (indices_rank + 1)))
    if axis:
        proto.graph.node[0].attribute.append(h.make_attribute("axis", axis))
    if indices is not None:
        proto.graph.initializer.append(nh.from_array(indices, "x"))
        del proto.graph.input[:]
        feed = {}
    return proto, feed


def check(proto, feed, store, *, by_rows):
    model = with_store(proto, store)
    data = model_bytes(model)
    onnx.checker.check_model(data)
    np.testing.assert_array_equal(run(data, feed), run(proto.SerializeToString(), feed))
    np.testing.assert_array_equal(
        run(data, feed, optimize=False), run(proto.SerializeToString(), feed)
    )
    marks = [
        entry.value
        for node in onnx.ModelProto.FromString(data).graph.node
        for entry in node.metadata_props
    ]
    assert any(mark.endswith(".rows") for mark in marks) == by_rows
    again = load_model(data)
    lifted = [store_of(each) for each in again.constants if each.name == "weight"]
    assert [each.load().tobytes() for each in lifted] == [store.load().tobytes()]
    assert model_bytes(again) == data
    Expand().apply(again, Context())
    expanded = onnx.ModelProto.FromString(model_bytes(again))
    expanded.graph.initializer.sort(key=lambda each: each.name)
    proto.graph.initializer.sort(key=lambda each: each.name)
    expanded.ir_version = proto.ir_version
    assert expanded == proto


@pytest.mark.parametrize("rank", [0, 1, 2])
@pytest.mark.parametrize("form", ["tensor", "rows", "columns"])
@pytest.mark.parametrize("clusters", [2, 16, 256])
def test_rows_are_decoded(rank, form, clusters):
    store = make_store(clusters, SHAPE, 17, form)
    check(*gather(store, rank), store, by_rows=True)


@pytest.mark.parametrize("opset", [7, 12, 13, 21, 25])
@pytest.mark.parametrize("width", [1, 2, 4])
def test_rows_at_every_opset(opset, width):
    store = make_store(16, SHAPE, opset, width=width)
    check(*gather(store), store, by_rows=not store.native or store.decodes_rows)


def test_negative_and_constant_indices():
    store = make_store(16, SHAPE)
    proto, feed = gather(store)
    feed["x"] = feed["x"] - 40
    check(proto, feed, store, by_rows=True)
    proto, feed = gather(store, indices=np.array([[1, 2], [3, -4]]))
    check(proto, feed, store, by_rows=False)


def test_another_axis_is_decoded_whole():
    store = make_store(16, (16, 50))
    check(*gather(store, axis=1), store, by_rows=False)


def test_rows_that_are_no_whole_bytes_are_decoded_whole():
    store = make_store(16, (50, 15))
    check(*gather(store), store, by_rows=False)


@pytest.mark.parametrize("other", ["Gather", "Identity", "output"])
def test_two_readers(other):
    store = make_store(16, SHAPE)
    proto, feed = gather(store)
    if other == "output":
        proto.graph.output.append(h.make_tensor_value_info("weight", 1, list(SHAPE)))
    else:
        inputs = ["weight", "x"] if other == "Gather" else ["weight"]
        proto.graph.node.append(h.make_node(other, inputs, ["z"], "second"))
        rank = 3 if other == "Gather" else 2
        proto.graph.output.append(h.make_tensor_value_info("z", 1, [None] * rank))
    check(proto, feed, store, by_rows=other == "Gather")


@pytest.mark.parametrize("both", [False, True])
def test_a_reader_in_a_body(both):
    store = make_store(16, SHAPE)
    proto, feed = gather(store)
    inner = h.make_node("Gather", ["weight", "x"], ["z"], "inner")
    output = h.make_tensor_value_info("z", 1, [None] * 3)
    branch = h.make_graph([inner], "b", [], [output])
    node = h.make_node("If", ["c"], ["i"], then_branch=branch, else_branch=branch)
    if not both:
        del proto.graph.node[:]
        proto.graph.output[0].name = "i"
    else:
        proto.graph.output.append(h.make_tensor_value_info("i", 1, [None] * 3))
    proto.graph.node.append(node)
    proto.graph.input.append(h.make_tensor_value_info("c", onnx.TensorProto.BOOL, []))
    feed["c"] = np.ones((), bool)
    check(proto, feed, store, by_rows=False)


def test_what_the_reader_was_called_survives():
    store = make_store(16, SHAPE)
    proto, feed = gather(store)
    proto.graph.node[0].doc_string = "tokens"
    proto.graph.node[0].metadata_props.add(key="a", value="b")
    check(proto, feed, store, by_rows=True)
