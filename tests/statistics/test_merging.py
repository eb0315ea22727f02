"""Statistics of two halves of the samples are those of the whole."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from observed import beside, built, distance, floats, observed, reseed

from onnxcomp.errors import DataError
from onnxcomp.graph import copy_model
from onnxcomp.statistics import HeldOut, InputStatistics, Moments, Statistics

reseed()
MODEL = built(
    "a = Conv <pads = [1, 1]> (x, w)  b = Relu (a)  c = GlobalAveragePool (b)"
    "  d = Flatten (c)  y = Gemm (d, v)",
    "(float[N,2,L] x) => (float[N,3] y)",
    {"w": floats(4, 2, 3), "v": floats(4, 3)},
)
FEEDS = [{"x": floats(2, 2, 150)} for _ in range(12)]
WHOLE = observed(MODEL, FEEDS)


def rows(held_out):
    """Return held-out columns in an order of their own."""
    if held_out is None:
        return np.empty((0, 0))
    sides = (held_out.columns, held_out.original)
    flat = np.hstack([np.moveaxis(each, 1, 0).reshape(each.shape[1], -1) for each in sides])
    return flat[np.lexsort(flat.T)]


def assert_alike(found, expected, tolerance=1e-6):
    assert list(found.inputs) == list(expected.inputs)
    for name, mine in found.inputs.items():
        theirs = expected.inputs[name]
        assert (mine.moments is None) == (theirs.moments is None)
        if mine.moments is not None:
            assert mine.moments.count == theirs.moments.count
            assert distance(mine.moments.mean, theirs.moments.mean) < tolerance
            assert distance(mine.moments.second, theirs.moments.second) < tolerance
        assert np.array_equal(rows(mine.held_out), rows(theirs.held_out))
    for name, mine in found.ranges.items():
        assert_equal_arrays(mine, expected.ranges[name])


def assert_equal_arrays(mine, theirs):
    mine, theirs = mine.arrays(), theirs.arrays()
    assert set(mine) == set(theirs)
    for name, array in mine.items():
        assert np.array_equal(array, theirs[name])


def test_the_whole_holds_out_some():
    of_conv, of_gemm = WHOLE.inputs["w"], WHOLE.inputs["v"]
    assert 0 < of_conv.moments.count < 12 * 300
    assert of_conv.moments.count + of_conv.held_out.columns.shape[1] <= 12 * 300
    assert of_gemm.moments.count + of_gemm.held_out.columns.shape[1] == 24


@settings(max_examples=8, deadline=None)
@given(st.integers(1, len(FEEDS) - 1))
def test_two_halves(split):
    found = observed(MODEL, FEEDS[:split])
    found.merge(observed(MODEL, FEEDS[split:]))
    assert_alike(found, WHOLE)


def test_three_parts_in_another_order():
    parts = [observed(MODEL, FEEDS[part::3]) for part in range(3)]
    found = parts[2]
    found.merge(parts[0])
    found.merge(parts[1])
    assert_alike(found, WHOLE)


@settings(max_examples=5, deadline=None)
@given(st.permutations(FEEDS))
def test_the_order_of_samples_does_not_matter(feeds):
    assert_alike(observed(MODEL, feeds), WHOLE)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    cuts=st.lists(st.integers(0, 900), min_size=1, max_size=6),
    paired=st.booleans(),
    seed=st.integers(0, 99),
)
def test_moments_of_any_cut(cuts, paired, seed):
    random = np.random.default_rng(seed)
    columns = random.standard_normal((2, 900, 3)).astype(np.float32)
    original = columns + random.standard_normal((2, 900, 3)).astype(np.float32)
    parts = [Moments(2, 3, 3 if paired else 0) for _ in range(2)]
    for place, part in enumerate(np.split(np.arange(900), sorted(cuts))):
        pair = (original[:, part],) if paired else ()
        parts[place % 2].add(columns[:, part], *pair)
    parts[0].merge(parts[1])
    exact = columns.astype(np.float64)
    beside_it = original.astype(np.float64) if paired else exact
    assert parts[0].count == 900
    assert distance(parts[0].mean, exact.mean(axis=1)) < 1e-6
    assert distance(parts[0].second, exact.transpose(0, 2, 1) @ exact / 900) < 1e-6
    assert distance(parts[0].cross, beside_it.transpose(0, 2, 1) @ exact / 900) < 1e-6


@settings(max_examples=30, deadline=None)
@given(order=st.permutations(range(8)), split=st.integers(0, 8))
def test_held_out_columns_of_any_order(order, split):
    samples = [np.full((1, 200, 1), place, np.float32) for place in range(8)]
    samples = [each + np.linspace(0, 0.5, 200, dtype=np.float32)[:, None] for each in samples]

    def kept(places):
        found = HeldOut(1, 1)
        for place in places:
            found.add(samples[place], None, np.random.default_rng(place))
        return found

    first, second = kept(order[:split]), kept(order[split:])
    first.merge(second)
    expected = kept(range(8))
    assert first.columns.shape == (1, 1024, 1)
    assert np.array_equal(rows(first), rows(expected))
    # Each of 1600 columns is as likely as any other.
    assert np.bincount(rows(first)[:, 0].astype(int), minlength=8).min() > 90


def test_pairs_merge():
    original = copy_model(MODEL)
    halves = [beside(MODEL, original, part)["v"] for part in (FEEDS[:5], FEEDS[5:])]
    halves[0].merge(halves[1])
    expected = beside(MODEL, original, FEEDS)["v"]
    assert distance(halves[0].moments.cross, expected.moments.cross) < 1e-6
    assert np.array_equal(rows(halves[0].held_out), rows(expected.held_out))


def test_merging_with_nothing():
    found = InputStatistics()
    found.merge(InputStatistics())
    assert found.fit is None
    found.merge(observed(MODEL, FEEDS[:3]).inputs["w"])
    found.merge(InputStatistics())
    expected = observed(MODEL, FEEDS[:3]).inputs["w"]
    assert distance(found.fit.second, expected.fit.second) < 1e-9


def test_merging_leaves_the_other_alone():
    first = Statistics(WHOLE.model)
    second, third = observed(MODEL, FEEDS[:6]), observed(MODEL, FEEDS[6:])
    first.merge(second)
    first.merge(third)
    assert_alike(first, WHOLE)
    assert_alike(second, observed(MODEL, FEEDS[:6]))
    assert_alike(third, observed(MODEL, FEEDS[6:]))


def test_what_layers_share_is_merged_once():
    model = built(
        "a = MatMul (x, w)  b = MatMul (x, v)  y = Add (a, b)",
        "(float[N,4] x) => (float[N,3] y)",
        {"w": floats(4, 3), "v": floats(4, 3)},
    )
    feeds = [{"x": floats(3, 4)} for _ in range(8)]
    found = observed(model, feeds[:4])
    found.merge(observed(model, feeds[4:]))
    assert found.inputs["w"] is found.inputs["v"]
    assert_alike(found, observed(model, feeds))


def test_statistics_of_another_model_are_not_merged():
    other = copy_model(MODEL)
    other.constants[0].values = other.constants[0].values + np.float32(1)
    with pytest.raises(DataError) as caught:
        observed(MODEL, FEEDS[:1]).merge(observed(other, FEEDS[:1]))
    assert str(caught.value) == "the statistics to merge are of another model; take those of one"
