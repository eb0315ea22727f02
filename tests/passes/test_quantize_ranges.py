"""Ranges of activations, from what was observed of them."""

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnxcomp.statistics import Range
from onnxcomp_passes.quantize import ranges
from onnxcomp_passes.quantize.grids import ActivationGrid

UINT8 = np.dtype(np.uint8)
FLOAT8S = [np.dtype(kind) for kind in (ml_dtypes.float8_e4m3fn, ml_dtypes.float8_e5m2)]
SENTINEL = np.float32(-3.4e38)
BIN = 2**-7
METHODS = {
    "minmax": ranges.minmax,
    "percentile": lambda observed: ranges.percentile(observed, 99.9),
    "mse": lambda observed: ranges.least_squares(observed, UINT8),
    "entropy": lambda observed: ranges.least_divergence(observed, UINT8),
}


def observed(*arrays):
    found = Range()
    for each in arrays:
        found.add(np.asarray(each, np.float32))
    return found


def normal(count=200_000, seed=0):
    return np.random.default_rng(seed).standard_normal(count)


def error(seen, ends, dtype=UINT8):
    """Return the squared error of rounding what was seen to a grid with these ends."""
    values, counts = ranges.bulk(seen)
    missed = ActivationGrid.between(*ends, dtype).rounded(values) - values
    return counts @ np.square(missed)


@pytest.mark.parametrize("dtype", FLOAT8S, ids=str)
def test_floats_lose_little_by_the_extremes(dtype):
    for values in (normal(), np.abs(normal()) ** 2, np.random.default_rng(0).uniform(-2, 6, 9999)):
        seen = observed(values)
        found = error(seen, ranges.least_squares(seen, dtype), dtype)
        assert found <= error(seen, ranges.minmax(seen), dtype) < 1.1 * found


def test_extremes():
    values = normal()
    assert ranges.minmax(observed(values)) == pytest.approx((values.min(), values.max()), rel=BIN)
    assert ranges.reach(observed([-3, 2])) == pytest.approx(3, rel=BIN)


@pytest.mark.parametrize("share", [60, 90, 99])
def test_percentiles_of_a_uniform_distribution(share):
    values = np.random.default_rng(0).uniform(-2, 6, 200_000)
    low, high = ranges.percentile(observed(values), share)
    half = 8 * share / 100 / 2
    assert low == pytest.approx(2 - half, abs=0.05)
    assert high == pytest.approx(2 + half, abs=0.05)


def test_all_values_are_within_a_hundred_per_cent():
    values = normal()
    assert ranges.percentile(observed(values), 100) == ranges.minmax(observed(values))


@pytest.mark.parametrize("name", ["percentile", "entropy"])
def test_one_value_far_away_hardly_counts(name):
    values = normal()
    low, high = METHODS[name](observed(values, [200.0]))
    assert -7 < low < -2.5
    assert 2.5 < high < 20


def test_uniform_values_are_not_cut_off():
    values = np.random.default_rng(0).uniform(-2, 6, 200_000)
    for name in ("mse", "entropy"):
        assert METHODS[name](observed(values)) == pytest.approx((-2, 6), rel=0.08)


@pytest.mark.parametrize("name", METHODS)
def test_what_stands_for_infinity_does_not_count(name):
    values = normal()
    masked = observed(values, np.full(300_000, SENTINEL), np.full(3, -SENTINEL))
    assert METHODS[name](masked) == pytest.approx(METHODS[name](observed(values)), rel=0.2)


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize(
    "seen", [observed(), observed([SENTINEL]), observed([np.nan, np.inf]), observed([0.0])]
)
def test_nothing_was_seen(name, seen):
    low, high = METHODS[name](seen)
    assert (low, high) == (0, 0)


@pytest.mark.parametrize("name", METHODS)
def test_values_of_one_sign(name):
    low, high = METHODS[name](observed(np.abs(normal())))
    assert low >= 0
    assert high > 2
    low, high = METHODS[name](observed(-np.abs(normal())))
    assert high <= 0
    assert low < -2


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.floats(1, 6), st.floats(-4, 4))
def test_the_least_squares_are_no_more_than_those_of_the_extremes(seed, tail, shift):
    values = normal(500, seed)
    seen = observed(np.sign(values) * np.abs(values) ** tail + shift)
    assert error(seen, METHODS["mse"](seen)) <= error(seen, ranges.minmax(seen))


def test_the_least_squares_are_less_where_tails_are_heavy():
    seen = observed(normal() ** 5)
    assert error(seen, METHODS["mse"](seen)) < 0.95 * error(seen, ranges.minmax(seen))
