"""Affine stores: ONNX Runtime decodes what `load` gives, in as many bytes as counted."""

from dataclasses import replace

import numpy as np
import onnx
import pytest
from building_blocks import (
    assert_decodes,
    assert_decodes_rows,
    gather,
    make_affine,
    make_codes,
    read_by,
    run,
    with_store,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper as h
from onnx import numpy_helper as nh

from onnxcomp.graph import (
    StoreValues,
    load_model,
    model_bytes,
    store_of,
)
from onnxcomp.stores import AffineStore

INTEGERS = ["int8", "uint8", "int16", "uint16", "int4", "uint4", "int2", "uint2"]
FLOAT8 = ["float8_e4m3fn", "float8_e5m2"]
CODES = [*INTEGERS, "int32", *FLOAT8, "float16", "bfloat16"]
DTYPES = ["float32", "float16", "bfloat16", "float64"]
FORMS = ["cast", "scale", "channels", "blocks"]


def is_possible(kind, form, dtype, *, zero, dequantized):
    if form == "cast" or not dequantized:
        return form != "blocks" and not zero and not (form == "cast" and dequantized)
    return (
        kind not in {"float16", "bfloat16"}
        and dtype != "float64"
        and not (zero and kind not in INTEGERS)
    )


CASES = [
    (kind, form, dtype, scale, zero, dequantized)
    for kind in CODES
    for form in FORMS
    for dtype in DTYPES
    for scale in ("float32", "float16")
    for zero, dequantized in ((False, False), (False, True), (True, True))
    if is_possible(kind, form, dtype, zero=zero, dequantized=dequantized)
    and (form != "cast" or scale == "float32")
]


def reader_of(store):
    """Return an operator that gives the weight out in a type that a session returns."""
    return "Cast" if store.dtype.name == "bfloat16" else "Identity"


@pytest.mark.filterwarnings("ignore:overflow encountered in cast")
@pytest.mark.parametrize(("kind", "form", "dtype", "scale", "zero", "dequantized"), CASES)
def test_what_onnx_runtime_decodes(kind, form, dtype, scale, zero, dequantized):  # noqa: PLR0917
    store = make_affine(
        kind, (7, 6, 3), form=form, axis=1, zero=zero, dtype=dtype, scale=scale,
        dequantized=dequantized,
    )  # fmt: skip
    store = replace(store, opset=store.least_opset)
    assert_decodes(store, reader_of(store))


@pytest.mark.filterwarnings("ignore:overflow encountered in cast")
@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(CODES),
    st.lists(st.integers(1, 9), min_size=1, max_size=4),
    st.sampled_from(FORMS),
    st.sampled_from(["float32", "float16"]),
    st.booleans(),
    st.booleans(),
    st.integers(1, 5),
    st.data(),
)
def test_any_store(kind, shape, form, dtype, zero, dequantized, block_size, data):  # noqa: PLR0917
    if kind == "int32":
        dtype = "float32"
    if not is_possible(kind, form, dtype, zero=zero, dequantized=dequantized):
        zero, form, dequantized = False, "channels", False
    # ONNX Runtime takes one block of a vector for a single scale, which has no blocks.
    shape = [*shape, 2] if form == "blocks" else shape
    store = make_affine(
        kind, tuple(shape), form=form, axis=data.draw(st.integers(0, len(shape) - 1)),
        block_size=block_size, zero=zero, dtype=dtype, dequantized=dequantized,
    )  # fmt: skip
    assert_decodes(store)


def test_decoded_values():
    codes = np.array([[0, 10, 255], [1, 2, 3]], np.uint8)
    store = AffineStore((2, 3), np.dtype("f4"), codes, 13, np.float32([0.5, 2]), np.uint8([10, 1]))
    np.testing.assert_array_equal(store.load(), [[-5, 0, 122.5], [0, 2, 4]])
    blocks = AffineStore(
        (2, 3), np.dtype("f4"), codes, 21, np.float32([[1, 2], [3, 4]]), axis=1, block_size=2
    )
    np.testing.assert_array_equal(blocks.load(), [[0, 10, 510], [3, 6, 12]])


@pytest.mark.parametrize("dequantized", [False, True])
def test_one_scale_stays_a_number(dequantized):
    store = make_affine(zero=dequantized, dequantized=dequantized)
    proto, _ = read_by("Identity", store)
    data = model_bytes(with_store(proto, store))
    written = onnx.ModelProto.FromString(data)
    factors = [each for each in written.graph.initializer if len(each.dims) != 2]
    assert {tuple(each.dims) for each in factors} == {()}
    assert not any(each.attribute for each in written.graph.node if each.op_type != "Cast")
    (lifted,) = (store_of(each) for each in load_model(data).constants)
    assert lifted.scale.shape == ()
    assert lifted.scale.dtype == np.float32


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("kind", ["int8", "int4", "uint2", "float8_e5m2", "int16"])
def test_counted_bytes(kind, form):
    dequantized = form == "blocks"
    store = make_affine(kind, (64, 64), form=form, dequantized=dequantized)
    proto, _ = read_by("MatMul", store)
    lowered = model_bytes(with_store(proto, store))
    del proto.graph.initializer[:]
    growth = len(lowered) - proto.ByteSize()
    assert growth == pytest.approx(store.nbytes, abs=80 + store.nbytes // 100)
    assert store.added_bytes(()) == store.nbytes
    assert store.tables == {}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"shape": (12, 8)}, "codes have shape"),
        ({"scale": np.ones(1, np.float32)}, "does not fit"),
        ({"scale": np.ones((8, 1), np.float32)}, "does not fit"),
        ({"axis": 1}, "does not fit"),
        ({"block_size": 4}, "does not fit"),
        ({"scale": None, "block_size": 4}, "takes blocks"),
        ({"zero_point": np.int8(3)}, "the scale's shape"),
        ({"zero_point": np.ones(8, np.uint8)}, "the codes' type"),
        ({"zero_point": np.ones(8, np.int8), "is_dequantized": False}, "has a zero point"),
        ({"dtype": np.dtype(np.float64)}, "no float64"),
        ({"codes": make_codes("float16", (8, 12))}, "takes no float16 codes"),
        ({"codes": make_codes("int4", (8, 12)), "opset": 20}, "needs opset 21, not 20"),
        ({"opset": 12}, "needs opset 13, not 12"),
    ],
)
def test_arguments_that_contradict_each_other(change, message):
    store = make_affine(form="channels", opset=17)
    with pytest.raises(ValueError, match=message):
        replace(store, **change)


@pytest.mark.parametrize("rank", [0, 1, 2])
@pytest.mark.parametrize("kind", ["int8", "uint8", "int16", "float16"])
@pytest.mark.parametrize("form", ["cast", "scale", "channels", "columns"])
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_rows_are_decoded(kind, rank, form, dtype):
    axis = int(form == "columns")
    form = "channels" if axis else form
    dequantized = kind != "float16" and form != "cast"
    zero = dequantized and kind != "int8"
    store = make_affine(
        kind, (50, 16), 21, form, axis=axis, zero=zero, dtype=dtype, dequantized=dequantized
    )
    assert_decodes_rows(*gather(store, rank), store, by_rows=True)


@pytest.mark.parametrize(
    ("kind", "form"), [("int4", "channels"), ("float8_e5m2", "scale"), ("int8", "blocks")]
)
def test_rows_that_no_gather_takes_are_decoded_whole(kind, form):
    store = make_affine(kind, (50, 16), form=form)
    assert_decodes_rows(*gather(store), store, by_rows=False)


def test_tables_of_the_same_codes_keep_their_own_scales():
    one = make_affine(shape=(50, 16), opset=17)
    two = replace(one, scale=one.scale * 2)
    proto, feed = gather(one)
    proto.graph.initializer.append(nh.from_array(two.load(), "second"))
    proto.graph.node.append(h.make_node("Gather", ["second", "x"], ["z"]))
    proto.graph.output.append(h.make_tensor_value_info("z", 1, [None] * 3))
    model = with_store(proto, one)
    model.constants[1].values = StoreValues(two)
    data = model_bytes(model)
    again = load_model(data)
    loaded = {each.name: each.values for each in again.constants}
    np.testing.assert_array_equal(loaded["weight"], one.load())
    np.testing.assert_array_equal(loaded["second"], two.load())
    assert model_bytes(again) == data
    np.testing.assert_array_equal(run(data, feed), one.load()[feed["x"]])


CHANGES = {
    "operator": lambda node: setattr(node, "op_type", "Div"),
    "attribute": lambda node: node.attribute.append(h.make_attribute("output_dtype", 1)),
    "axis": lambda node: node.attribute.append(h.make_attribute("axis", 1.5)),
    "mark": lambda node: setattr(node.metadata_props[0], "value", "codebook"),
    "no inputs": lambda node: node.input.pop(),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("dequantized", [False, True])
def test_a_decoding_that_was_changed_is_left_alone(change, dequantized):
    store = make_affine(dequantized=dequantized)
    proto, _ = read_by("Identity", store)
    lowered = onnx.ModelProto.FromString(model_bytes(with_store(proto, store)))
    marked = next(node for node in lowered.graph.node if node.metadata_props)
    CHANGES[change](marked)
    loaded = load_model(lowered)
    assert all(store_of(each) is None for each in loaded.constants)
    assert onnx.ModelProto.FromString(model_bytes(loaded)) == lowered
