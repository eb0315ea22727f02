"""Ranges of activations."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from observed import built, floats, observed

from onnxcomp.statistics import Range

KINDS = {
    "normal": lambda random, count: random.standard_normal(count),
    "far from zero": lambda random, count: 1000 + random.standard_normal(count),
    "of all sizes": lambda random, count: np.exp(8 * random.standard_normal(count)),
    "after a ReLU": lambda random, count: np.maximum(random.standard_normal(count), 0),
    "negative": lambda random, count: -random.gamma(2, size=count),
}


def ranged(*arrays, axis=-1):
    found = Range(axis)
    for array in arrays:
        found.add(np.asarray(array))
    return found


@pytest.mark.parametrize("make", KINDS.values(), ids=list(KINDS))
@pytest.mark.parametrize("share", [0, 0.1, 1, 25, 50, 75, 99, 99.9, 100])
def test_percentiles(make, share):
    values = make(np.random.default_rng(3), 200_000).astype(np.float32)
    found = ranged(*np.split(values, 8))
    expected = np.percentile(values.astype(np.float64), share, method="inverted_cdf")
    assert found.percentile(share) == pytest.approx(expected, rel=0.01)
    assert found.points()[1].sum() == len(values)


def test_extremes_are_exact():
    values = floats(1000)
    found = ranged(values[:300], values[300:].reshape(7, 100))
    assert (found.least, found.most) == (values.min(), values.max())
    assert found.percentile(0) >= found.least
    assert found.percentile(100) <= found.most


@pytest.mark.parametrize(("shape", "axis"), [((4, 6), -1), ((2, 6, 3, 5), 1), ((3, 5, 6), -1)])
def test_the_largest_of_each_channel(shape, axis):
    arrays = [floats(*shape) for _ in range(3)]
    found = ranged(*arrays, axis=axis)
    rows = [np.moveaxis(each, axis, 0).reshape(6, -1) for each in arrays]
    assert np.array_equal(found.channels, np.abs(np.concatenate(rows, axis=1)).max(axis=1))


def test_channels_of_a_model():
    model = built(
        "a = Conv (x, w)  b = GlobalAveragePool (a)  c = Flatten (b)  y = Gemm (c, v)",
        "(float[N,2,L] x) => (float[N,5] y)",
        {"w": floats(4, 2, 3), "v": floats(4, 5)},
    )
    feeds = [{"x": floats(3, 2, 7)} for _ in range(5)]
    found = observed(model, feeds).ranges
    assert {name: len(each.channels) for name, each in found.items()} == {
        "x": 2,
        "a": 4,
        "c": 4,
        "y": 5,
    }
    everything = np.concatenate([feed["x"] for feed in feeds])
    assert (found["x"].least, found["x"].most) == (everything.min(), everything.max())
    assert np.array_equal(found["x"].channels, np.abs(everything).max(axis=(0, 2)))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_does_not_count(bad):
    values = 5 + np.abs(floats(50, 4))
    spoiled = np.concatenate([values, np.full((10, 4), bad, np.float32)])
    found, expected = ranged(spoiled), ranged(values)
    for name, array in expected.arrays().items():
        assert np.array_equal(array, found.arrays()[name])


def test_a_channel_that_is_never_finite():
    values = np.ones((3, 2), np.float32)
    values[:, 1] = np.nan
    found = ranged(values)
    assert (found.least, found.most) == (1, 1)
    assert found.channels.tolist() == [1, 0]


@pytest.mark.parametrize("nothing", [[], [[]], [[np.nan, np.nan]]])
def test_nothing(nothing):
    found = ranged(np.array(nothing, np.float32))
    assert (found.least, found.most) == (np.inf, -np.inf)
    with pytest.raises(ValueError, match=r"^no value was observed$"):
        found.percentile(50)


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_other_types(dtype):
    values = floats(100).astype(dtype)
    found = ranged(values)
    assert found.most == np.float32(values.max())


@settings(max_examples=30, deadline=None)
@given(values=st.lists(st.floats(width=32), min_size=2, max_size=60), split=st.integers(1, 59))
def test_halves_merge_to_the_whole(values, split):
    array = np.array(values, np.float32)
    found = ranged(array[:split])
    found.merge(ranged(array[split:]))
    assert_same(found, ranged(array))


@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1))
def test_points_are_near_what_they_stand_for(values):
    array = np.array(values, np.float32)
    points, counts = ranged(array).points()
    assert counts.sum() == len(array)
    assert np.all(np.diff(points) >= 0)
    spread = np.repeat(points, counts)
    # Below the smallest normal number the distance of bins is absolute.
    assert spread == pytest.approx(np.sort(array).astype(np.float64), rel=0.004, abs=1e-40)


def assert_same(found, expected):
    found, expected = found.arrays(), expected.arrays()
    # One half may have had fewer channels than the other: a lone row's are its elements.
    for name in ("extremes", "bins", "counts"):
        assert np.array_equal(found[name], expected[name])
