"""Every form of a store: ONNX Runtime decodes what `load` gives, in as many bytes as counted."""

import numpy as np
import onnx
import pytest
from building_blocks import assert_decodes, make_store, operators, read_by, run, with_store
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper as h

from onnxcomp.graph import load_model, model_bytes, store_of
from onnxcomp.stores import codebook, parse_store
from onnxcomp.stores.expression import equal

FORMS = ["tensor", "group", "rows", "columns"]
FORM_OF = {
    "one plane": {"clusters": 16},
    "a wasteful base": {"clusters": 5},
    "two planes": {"clusters": 64},
    "three planes": {"clusters": 128},
    "bytes": {"clusters": 256},
    "bits": {"clusters": 2},
    "odd": {"clusters": 16, "shape": (7, 11)},
    "odd planes": {"clusters": 8, "shape": (7, 11)},
    "float16": {"dtype": "float16", "entries": "float16"},
    "float16 entries": {"entries": "float16"},
    "int8 entries": {"entries": "int8"},
    "int8 entries for float16": {"entries": "int8", "dtype": "float16"},
    "pairs": {"width": 2},
    "quads": {"width": 4, "clusters": 200},
    "double": {"dtype": "float64", "entries": "float64"},
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("opset", [7, 9, 13, 21, 25])
@pytest.mark.parametrize("clusters", [2, 3, 4, 6, 8, 16, 17, 32, 64, 128, 200, 256])
def test_the_inverse(clusters, opset, form):
    for shape, axis in (((8, 12), 0), ((12, 8), 1), ((4, 3, 8), 2)):
        store = make_store(clusters, shape, opset, form, axis=axis)
        tree = store.expression()
        parsed = parse_store(store.kind, tree, opset)
        assert parsed is not None
        assert equal(parsed.expression(), tree)
        assert parsed.load().tobytes() == store.load().tobytes()


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("kind", FORM_OF)
@pytest.mark.parametrize("opset", [7, 17, 25])
def test_what_onnx_runtime_decodes(kind, form, opset):
    options = FORM_OF[kind]
    if form == "group" and (7 in options.get("shape", ()) or options.get("width", 1) > 1):
        options = {**options, "shape": (8, 11), "width": 1}
    store = make_store(opset=opset, form=form, **options)
    assert_decodes(store)


@pytest.mark.parametrize("axis", [0, 1, 2, 3])
def test_moved_axes(axis):
    assert_decodes(make_store(shape=(4, 8, 4, 12), form="group", axis=axis))


@pytest.mark.parametrize(
    ("op", "shape"),
    [("MatMul", (16, 8)), ("Gemm", (16, 8)), ("Conv", (8, 4, 3, 3)), ("LSTM", (1, 16, 8))],
)
@pytest.mark.parametrize("form", ["tensor", "group", "rows"])
@pytest.mark.parametrize("clusters", [16, 64])
def test_folded_at_load(tmp_path, op, shape, form, clusters):
    axis = 1 if op in {"MatMul", "Gemm", "LSTM"} else 0
    store = make_store(clusters, shape, 17, form, axis=axis)
    proto, feed = read_by(op, store)
    data = assert_decodes(store, op)
    run(data, feed, optimized_path=tmp_path / "optimized.onnx")
    run(proto.SerializeToString(), feed, optimized_path=tmp_path / "plain.onnx")
    assert operators(tmp_path / "optimized.onnx") == operators(tmp_path / "plain.onnx")


@pytest.mark.parametrize("place", ["branch", "function", "Constant node"])
def test_folded_wherever_it_is(tmp_path, place):
    store = make_store(16, (12, 8), 17, "rows")
    proto, feed = read_by("MatMul", store)
    weight, node = proto.graph.initializer[0], proto.graph.node[0]
    constant = h.make_node("Constant", [], ["weight"], value=weight)
    del proto.graph.initializer[:]
    if place == "Constant node":
        proto.graph.node.insert(0, constant)
    elif place == "branch":
        output = h.make_tensor_value_info("y", 1, [None] * 2)
        branch = h.make_graph([node], "b", [], [output], [weight])
        del proto.graph.node[:]
        proto.graph.node.append(
            h.make_node("If", ["c"], ["z"], then_branch=branch, else_branch=branch)
        )
        proto.graph.input.append(h.make_tensor_value_info("c", onnx.TensorProto.BOOL, []))
        proto.graph.output[0].name = "z"
        feed["c"] = np.ones((), bool)
    else:
        body = [constant, node]
        function = h.make_function("f", "F", ["x"], ["y"], body, [h.make_opsetid("", 17)])
        proto.functions.append(function)
        proto.opset_import.append(h.make_opsetid("f", 1))
        del proto.graph.node[:]
        proto.graph.node.append(h.make_node("F", ["x"], ["y"], domain="f"))
    model = with_store(proto, store)
    data = model_bytes(model)
    onnx.checker.check_model(data)
    expected = run(proto.SerializeToString(), feed, optimized_path=tmp_path / "plain.onnx")
    result = run(data, feed, optimized_path=tmp_path / "optimized.onnx")
    np.testing.assert_array_equal(result, expected)
    assert operators(tmp_path / "optimized.onnx") == operators(tmp_path / "plain.onnx")
    assert model_bytes(load_model(data)) == data
    scopes = load_model(data).all_scopes()
    stores = [store_of(each) for scope in scopes for each in scope.constants]
    assert [each.load().tobytes() for each in stores if each] == [store.load().tobytes()]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("clusters", [2, 16, 64, 256])
def test_counted_bytes(clusters, form):
    store = make_store(clusters, (64, 64), 17, form)
    proto, _ = read_by("MatMul", store)
    model = with_store(proto, store)
    lowered = model_bytes(model)
    del proto.graph.initializer[:]
    growth = len(lowered) - proto.ByteSize()
    stored = store.added_bytes(())
    assert growth == pytest.approx(stored, abs=80 + stored // 100)


def test_present_tables_cost_nothing():
    store = make_store(16, (64, 64), 17, "tensor")
    assert store.added_bytes(store.tables) == store.nbytes
    assert store.added_bytes(()) == store.nbytes + sum(store.tables.values())


@pytest.mark.parametrize("limit", [1000, 3000])
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("kind", ["one plane", "two planes", "float16", "pairs", "int8 entries"])
def test_pieces_where_an_intermediate_is_too_large(monkeypatch, kind, form, limit):
    options = {**FORM_OF[kind], "shape": (24, 90)}
    if form == "group":
        options["width"] = 1
    store = make_store(opset=17, form=form, **options)
    whole = store.load()
    monkeypatch.setattr(codebook, "FOLDING_LIMIT", limit)
    assert store.expression().op_type == "Concat"
    assert store.load().tobytes() == whole.tobytes()
    data = assert_decodes(store)
    inferred = onnx.shape_inference.infer_shapes(onnx.load_from_string(data), data_prop=True)
    allowed = max(limit, whole.nbytes // 4) if form == "group" else limit
    for info in inferred.graph.value_info:
        kind_of = info.type.tensor_type
        count = np.prod([dim.dim_value for dim in kind_of.shape.dim])
        size = h.tensor_dtype_to_np_dtype(kind_of.elem_type).itemsize
        is_table = kind_of.shape.dim[0].dim_value == 256
        assert is_table or info.name in {"weight", "y"} or count * size <= allowed


CHANGES = {
    "operator": lambda node: setattr(node, "op_type", "Sub"),
    "attribute": lambda node: node.attribute.append(h.make_attribute("axis", 1)),
    "mark": lambda node: setattr(node.metadata_props[0], "value", "newer"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_decoding_that_was_changed_is_left_alone(change):
    store = make_store(16, (8, 12), 17, "rows")
    proto, _ = read_by("Identity", store)
    lowered = onnx.ModelProto.FromString(model_bytes(with_store(proto, store)))
    marked = next(node for node in lowered.graph.node if node.metadata_props)
    CHANGES[change](marked)
    loaded = load_model(lowered)
    assert all(store_of(each) is None for each in loaded.constants)
    assert onnx.ModelProto.FromString(model_bytes(loaded)) == lowered


def test_a_shape_that_was_changed():
    store = make_store(16, (8, 12), 17)
    proto, _ = read_by("Identity", store)
    lowered = onnx.ModelProto.FromString(model_bytes(with_store(proto, store)))
    bounds = [each for each in lowered.graph.initializer if each.data_type == 7]
    bounds[-1].raw_data = np.array([12, 8], np.int64).tobytes()
    result = run(model_bytes(load_model(lowered)), {})
    assert result.tobytes() == store.load().tobytes()
    assert result.shape == (12, 8)


def test_an_intermediate_result_that_is_read_elsewhere():
    store = make_store(16, (8, 12), 17, "rows")
    proto, _ = read_by("Identity", store)
    lowered = onnx.ModelProto.FromString(model_bytes(with_store(proto, store)))
    inner = lowered.graph.node[-2].input[0]
    lowered.graph.output.append(h.make_tensor_value_info(inner, 1, [None] * 2))
    loaded = load_model(lowered)
    data = model_bytes(loaded)
    np.testing.assert_array_equal(run(data, {}), store.load())
    onnx.checker.check_model(data)


def test_two_weights_share_their_tables():
    one, two = make_store(16, (64, 64), 17), make_store(16, (64, 32), 17)
    proto, _ = read_by("Identity", one)
    proto.graph.initializer.append(onnx.numpy_helper.from_array(two.load(), "second"))
    proto.graph.node.append(h.make_node("Identity", ["second"], ["z"]))
    proto.graph.output.append(h.make_tensor_value_info("z", 1, [None] * 2))
    model = with_store(proto, one)
    model.constants[1].values = type(model.constants[0].held)(two)
    data = model_bytes(model)
    tensors = onnx.ModelProto.FromString(data).graph.initializer
    assert len({each.raw_data for each in tensors}) == len(tensors)
    assert model_bytes(load_model(data)) == data


@settings(max_examples=40, deadline=None)
@given(
    st.integers(2, 256),
    st.lists(st.integers(1, 9), min_size=1, max_size=4),
    st.sampled_from([7, 9, 10, 21, 25]),
    st.sampled_from(["tensor", "rows"]),
    st.sampled_from(["float32", "float16", "int8"]),
    st.sampled_from(["float32", "float16"]),
    st.data(),
)
def test_any_store(clusters, shape, opset, form, entries, dtype, data):  # noqa: PLR0917
    axis = data.draw(st.integers(0, len(shape) - 1))
    store = make_store(
        clusters, tuple(shape), opset, form, entries=entries, dtype=dtype, axis=axis
    )
    assert_decodes(store)
