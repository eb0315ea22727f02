"""Sparse stores: ONNX Runtime decodes what `load` gives, folded, in as many bytes as counted."""

import ml_dtypes
import numpy as np
import pytest
from building_blocks import NUMBERS, assert_decodes, operators, read_by, run, with_store
from hypothesis import given, settings
from hypothesis import strategies as st

from onnxcomp.graph import load_model, model_bytes, raise_opset, store_of
from onnxcomp.stores import AffineStore, Codebook, SparseStore, leave_out_zeros, store_codes
from onnxcomp.stores.sparse import Places

DENSITIES = {"bitmask": 0.5, "short steps": 0.1, "long steps": 0.01}


def holes(shape, density):
    """Return which elements are stored."""
    support = NUMBERS.random(shape) < density
    support.reshape(-1)[-1] = True
    return support


def affine(kind, shape, density, *, dtype="float32", scaled=None, opset=17, axis=0):
    """Return a store of the Cast form with zeros; ``scaled`` is None, scale or channels."""
    codes = NUMBERS.integers(1, 100, shape) if "int" in kind else NUMBERS.normal(size=shape)
    codes = np.where(holes(shape, density), codes, 0).astype(getattr(ml_dtypes, kind, kind))
    size = {"scale": (), "channels": shape[axis : axis + 1]}.get(scaled)
    scale = None if size is None else np.asarray(NUMBERS.uniform(0.5, 2, size), np.float32)
    return AffineStore(
        shape,
        np.dtype(getattr(ml_dtypes, dtype, dtype)),
        codes,
        opset,
        scale,
        axis=axis,
        is_dequantized=False,
    )


def coded(clusters, shape, density, *, dtype="float32", opset=17, axis=0, scaled=False):
    """Return the smallest store of codes of which many stand for zero."""
    entries = np.sort(NUMBERS.normal(size=clusters)).astype(np.float32)
    entries[clusters // 2] = 0
    codes = NUMBERS.integers(0, clusters, shape)
    codes = np.where(holes(shape, density), codes, clusters // 2).astype(np.uint8)
    moved = (shape[axis], *(size for each, size in enumerate(shape) if each != axis))
    sizes = [moved[0], *[1] * (len(shape) - 1)]
    return store_codes(
        np.moveaxis(codes, axis, 0).reshape(-1),
        Codebook(entries[:, None].astype(dtype if not scaled else np.float32)),
        shape=shape,
        dtype=np.dtype(dtype),
        opset=opset,
        axis=axis,
        scale=NUMBERS.uniform(0.5, 2, sizes).astype(np.float32) if scaled else None,
    )


@pytest.mark.parametrize("dtype", ["float32", "float16", "float64", "bfloat16"])
@pytest.mark.parametrize("scaled", [None, "scale", "channels"])
@pytest.mark.parametrize("kind", ["same", "int8", "float16"])
@pytest.mark.parametrize("form", DENSITIES)
def test_what_onnx_runtime_decodes(form, kind, scaled, dtype):
    dense = affine(
        dtype if kind == "same" else kind, (64, 6, 30), DENSITIES[form], dtype=dtype,
        scaled=scaled, axis=1,
    )  # fmt: skip
    store = leave_out_zeros(dense)
    assert isinstance(store, SparseStore)
    assert store.load().tobytes() == dense.load().tobytes()
    assert_decodes(store, "Cast" if dtype == "bfloat16" else "Identity")


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("clusters", [3, 16, 64, 256])
@pytest.mark.parametrize("form", DENSITIES)
@pytest.mark.parametrize("opset", [11, 25])
def test_codes(form, clusters, axis, opset):
    for scaled in (False, True):
        store = coded(
            clusters, (64, 30, 24), DENSITIES[form], opset=opset, axis=axis, scaled=scaled
        )
        # Ternary codes of a half empty weight are smaller as they are.
        assert isinstance(store, SparseStore) == (clusters > 3 or form != "bitmask")
        if isinstance(store, SparseStore):
            assert (store.base == 2) == (form == "bitmask")
        assert_decodes(store)


@pytest.mark.parametrize("form", DENSITIES)
@pytest.mark.parametrize(("op", "shape"), [("MatMul", (64, 48)), ("Conv", (32, 16, 3, 3))])
def test_folded_at_load(tmp_path, op, shape, form):
    for store in (
        leave_out_zeros(affine("float32", shape, DENSITIES[form])),
        coded(16, shape, DENSITIES[form], scaled=True),
    ):
        proto, feed = read_by(op, store)
        run(assert_decodes(store, op), feed, optimized_path=tmp_path / "optimized.onnx")
        run(proto.SerializeToString(), feed, optimized_path=tmp_path / "plain.onnx")
        assert operators(tmp_path / "optimized.onnx") == operators(tmp_path / "plain.onnx")


@pytest.mark.parametrize("form", DENSITIES)
def test_counted_bytes(form):
    for store in (
        leave_out_zeros(affine("float32", (64, 64), DENSITIES[form])),
        coded(16, (256, 192), DENSITIES[form], scaled=True),
    ):
        assert isinstance(store, SparseStore)
        proto, _ = read_by("MatMul", store)
        lowered = model_bytes(with_store(proto, store))
        del proto.graph.initializer[:]
        growth = len(lowered) - proto.ByteSize()
        assert growth == pytest.approx(store.added_bytes(()), abs=150 + store.nbytes // 100)


@pytest.mark.parametrize("density", [0.5, 0.3, 0.1])
def test_bits_of_a_pruned_and_clustered_weight(density):
    store = coded(16, (256, 1024), density)
    assert 8 * store.added_bytes(()) / (256 * 1024) < 1.01 * (1 + 4 * density) + 0.06


def test_dense_where_zeros_are_few():
    assert not isinstance(coded(16, (64, 64), 0.8), SparseStore)
    assert not isinstance(leave_out_zeros(affine("float32", (64, 64), 0.99)), SparseStore)
    assert not isinstance(coded(16, (64, 64), 0.1, opset=9), SparseStore)


def test_a_raised_opset_raises_the_payload():
    store = coded(16, (256, 192), 0.5, opset=17)
    proto, feed = read_by("MatMul", store)
    model = with_store(proto, store)
    raise_opset(model, 21)
    data = model_bytes(model)
    np.testing.assert_array_equal(run(data, feed), run(proto.SerializeToString(), feed))
    again = load_model(data)
    assert isinstance(
        store_of(next(c for c in again.constants if c.name == "weight")), SparseStore
    )


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.integers(1, 12), min_size=1, max_size=4),
    st.lists(st.integers(0, 600), max_size=40),
    st.sampled_from([2, 16, 256]),
    st.sampled_from(["float32", "float16"]),
    st.data(),
)
def test_any_places(shape, places, base, dtype, data):
    size = int(np.prod(shape))
    support = np.zeros(size, bool)
    support[[place for place in places if place < size]] = True
    found = next(each for each in Places.all_of(support) if each.base == base)
    values = np.where(support, NUMBERS.normal(size=size), 0).astype(dtype)
    part = values[found.stored]
    payload = AffineStore(part.shape, part.dtype, part, 17, is_dequantized=False)
    axis = data.draw(st.integers(0, len(shape) - 1))
    store = SparseStore(tuple(shape), part.dtype, found.packed, found.base, payload, 17, axis)
    moved = (shape[axis], *(each for at, each in enumerate(shape) if at != axis))
    np.testing.assert_array_equal(store.load(), np.moveaxis(values.reshape(moved), 0, axis))
    assert_decodes(store)
