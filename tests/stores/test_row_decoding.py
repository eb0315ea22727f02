"""Embeddings: the codes are gathered first, and only the gathered rows are decoded."""

import numpy as np
import onnx
import pytest
from building_blocks import assert_decodes_rows, gather, make_store
from onnx import helper as h

SHAPE = (50, 16)


@pytest.mark.parametrize("rank", [0, 1, 2])
@pytest.mark.parametrize("form", ["tensor", "rows", "columns"])
@pytest.mark.parametrize("clusters", [2, 16, 256])
def test_rows_are_decoded(rank, form, clusters):
    store = make_store(clusters, SHAPE, 17, form)
    assert_decodes_rows(*gather(store, rank), store, by_rows=True)


@pytest.mark.parametrize("opset", [7, 12, 13, 21, 25])
@pytest.mark.parametrize("width", [1, 2, 4])
def test_rows_at_every_opset(opset, width):
    store = make_store(16, SHAPE, opset, width=width)
    assert_decodes_rows(*gather(store), store, by_rows=not store.native or store.decodes_rows)


def test_negative_and_constant_indices():
    store = make_store(16, SHAPE)
    proto, feed = gather(store)
    feed["x"] = feed["x"] - 40
    assert_decodes_rows(proto, feed, store, by_rows=True)
    proto, feed = gather(store, indices=np.array([[1, 2], [3, -4]]))
    assert_decodes_rows(proto, feed, store, by_rows=False)


def test_another_axis_is_decoded_whole():
    store = make_store(16, (16, 50))
    assert_decodes_rows(*gather(store, axis=1), store, by_rows=False)


def test_rows_that_are_no_whole_bytes_are_decoded_whole():
    store = make_store(16, (50, 15))
    assert_decodes_rows(*gather(store), store, by_rows=False)


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
    assert_decodes_rows(proto, feed, store, by_rows=other == "Gather")


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
    assert_decodes_rows(proto, feed, store, by_rows=False)


def test_what_the_reader_was_called_survives():
    store = make_store(16, SHAPE)
    proto, feed = gather(store)
    proto.graph.node[0].doc_string = "tokens"
    proto.graph.node[0].metadata_props.add(key="a", value="b")
    assert_decodes_rows(proto, feed, store, by_rows=True)
