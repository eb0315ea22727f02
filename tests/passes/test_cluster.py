"""The options of `Cluster` on single weights."""

import ml_dtypes
import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from single_weight import WEIGHT, clustered, model_of, relative

from onnxcomp import Context, load_model, weights
from onnxcomp.errors import OptionError
from onnxcomp.graph import model_bytes, store_of
from onnxcomp.passes import Cluster
from onnxcomp.runtime import open_session

GROUPS = (
    "cluster: granularity = 'group' has codebooks of its own and width 1; use 'scale' or 'tensor'"
)


@pytest.mark.parametrize("granularity", ["scale", "tensor", "group"])
def test_more_bits_less_error(granularity):
    errors = []
    for bits in range(1, 9):
        verdict, decoded, model = clustered(
            WEIGHT, bits=bits, granularity=granularity, group_size=40
        )
        (weight,) = weights(model)
        assert verdict.verdict == "changed"
        assert verdict.error == pytest.approx(relative(WEIGHT, decoded), rel=1e-5)
        stored = store_of(weight.tensor).added_bytes(())
        assert (verdict.bytes_before, verdict.bytes_after) == (7680, stored)
        assert verdict.bytes_after < 7680
        if granularity != "scale":
            assert len(np.unique(decoded)) <= 2**bits
        errors.append(verdict.error)
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 0.02 < errors[3] < 0.12


@pytest.mark.parametrize(
    "clusters", [2, 3, 5, 6, 7, 9, 16, 17, 24, 36, 40, 64, 65, 100, 128, 200, 255, 256]
)
def test_any_number_of_clusters(clusters):
    verdict, decoded, model = clustered(WEIGHT, clusters=clusters, granularity="tensor")
    assert verdict.reason == f"{clusters} clusters"
    assert len(np.unique(decoded)) == clusters
    session = open_session(model_bytes(model))
    assert np.array_equal(session.run({"x": np.eye(48, dtype=np.float32)})["y"], decoded)


@pytest.mark.parametrize("opset", [7, 9, 11, 13, 17, 21])
@pytest.mark.parametrize(
    "options",
    [
        {"bits": 1, "granularity": "tensor"},
        {"bits": 4, "entries": "float16"},
        {"bits": 4, "entries": "int8", "granularity": "tensor"},
        {"bits": 3, "granularity": "group", "group_size": 8},
        {"bits": 5, "entries": "int8"},
        {"bits": 6, "granularity": "group", "group_size": 20, "entries": "float16"},
        {"bits": 8},
        {"bits": 4, "width": 2},
        {"bits": 2, "width": 4, "entries": "float16"},
        {"bits": 3, "width": 2, "granularity": "tensor", "entries": "int8"},
        {"bits": 4, "share": "model"},
        {"clusters": 10, "share": "model", "granularity": "tensor"},
    ],
    ids=str,
)
def test_onnx_runtime_decodes_the_same(opset, options):
    verdict, decoded, model = clustered(WEIGHT, opset, **options)
    assert verdict.verdict == "changed"
    data = model_bytes(model)
    onnx.checker.check_model(data)
    for optimize in (True, False):
        session = open_session(data, optimize=optimize)
        got = session.run({"x": np.eye(48, dtype=np.float32)})["y"]
        assert np.array_equal(got, decoded)
    (again,) = weights(load_model(data))
    assert np.array_equal(again.load(), decoded)


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
@pytest.mark.parametrize("granularity", ["scale", "tensor", "group"])
def test_other_types(dtype, granularity):
    values = WEIGHT.astype(dtype)
    verdict, decoded, model = clustered(values, granularity=granularity, bits=3)
    assert decoded.dtype == dtype
    assert verdict.error < 0.25
    got = open_session(model_bytes(model)).run({"x": np.eye(48, dtype=dtype)})["y"]
    assert np.array_equal(got, decoded)


def test_bfloat16():
    model = model_of(WEIGHT)
    (weight,) = weights(model)
    values = WEIGHT.astype(ml_dtypes.bfloat16)
    weight.tensor.values = values
    (verdict,) = Cluster(bits=4).apply(model, Context())
    decoded = next(iter(weights(model))).load()
    assert decoded.dtype == values.dtype
    assert verdict.error < 0.15


@pytest.mark.parametrize(("group_size", "groups"), [(1, 40), (8, 5), (16, 4), (7, 8), (99, 1)])
def test_group_sizes(group_size, groups):
    verdict, decoded, _ = clustered(WEIGHT, bits=2, granularity="group", group_size=group_size)
    if verdict.verdict == "skipped":
        assert verdict.reason.startswith("would not be smaller")
        return
    assert verdict.reason == f"{groups} codebooks of 4"
    for columns in np.split(decoded, groups, axis=1):
        assert len(np.unique(columns)) <= 4


def test_smaller_groups_less_error():
    errors = [
        clustered(WEIGHT, bits=2, granularity="group", group_size=size)[0].error
        for size in (40, 20, 10, 5)
    ]
    assert errors == sorted(errors, reverse=True)


def test_a_scale_for_each_channel_follows_it():
    loud = WEIGHT * np.geomspace(1e-3, 1e3, 40, dtype=np.float32)
    scaled = clustered(loud, bits=4)[1]
    plain = clustered(loud, bits=4, granularity="tensor")[1]
    quiet = slice(0, 8)
    assert relative(loud[:, quiet], scaled[:, quiet]) < 0.2
    assert relative(loud[:, quiet], plain[:, quiet]) > 0.9


@pytest.mark.parametrize("width", [2, 4])
def test_vectors(width):
    verdict, decoded, _ = clustered(
        WEIGHT, bits=8 // width, width=width, granularity="tensor", entries="float16"
    )
    vectors = decoded.reshape(-1, width)
    assert verdict.reason == f"256 vectors of {width}"
    assert len(np.unique(vectors, axis=0)) <= 256
    scalar = clustered(WEIGHT, bits=8 // width, granularity="tensor")[0]
    assert verdict.error < scalar.error


def test_vectors_that_do_not_fit():
    verdict, decoded, _ = clustered(WEIGHT[:47, :39], bits=2, width=4)
    assert verdict.reason == "has 1833 elements, no multiple of width 4"
    assert np.array_equal(decoded, WEIGHT[:47, :39])


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 1000),
    clusters=st.integers(2, 40),
    granularity=st.sampled_from(["tensor", "group"]),
    levels=st.sampled_from([3, 30, 3000]),
)
def test_no_codebook_has_more_entries(seed, clusters, granularity, levels):
    random = np.random.default_rng(seed)
    drawn = random.standard_normal(levels).astype(np.float32)
    values = random.choice(drawn, (32, 48))
    options = {"clusters": clusters, "granularity": granularity, "group_size": 24}
    verdict, decoded, _ = clustered(values, **options)
    groups = 2 if granularity == "group" else 1
    for columns in np.split(decoded, groups, axis=1):
        assert len(np.unique(columns)) <= clusters
    assert verdict.bytes_after <= verdict.bytes_before
    if len(np.unique(values)) <= clusters:
        assert np.array_equal(values, decoded)


@pytest.mark.parametrize(
    "options", [{}, {"bits": 4, "width": 2}, {"bits": 2, "width": 4}, {"share": "model"}], ids=str
)
def test_the_same_each_time(options):
    files = {model_bytes(clustered(WEIGHT, **options)[2]) for _ in range(3)}
    assert len(files) == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"bits": 4, "width": 4}, "cluster: bits = 4: at most 2 with width = 4"),
        (
            {"granularity": "group", "share": "model"},
            GROUPS,
        ),
        (
            {"share": "model", "width": 2, "bits": 2},
            "cluster: share = 'model' needs width = 1",
        ),
    ],
)
def test_what_does_not_fit_together(options, message):
    with pytest.raises(OptionError) as caught:
        Cluster(**options)
    assert str(caught.value) == message


def test_progress():
    told = []
    Cluster().apply(model_of(WEIGHT), Context(progress=told.append))
    assert told == sorted(told)
    assert told[-1] == 1.0
    assert store_of(next(iter(weights(model_of(WEIGHT)))).tensor) is None
