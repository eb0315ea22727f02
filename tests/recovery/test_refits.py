"""Refits: stationary points that are never worse than where they started."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from problem_sets import cost, second_moment

from onnxcomp.recovery import (
    damp,
    gain_and_shift,
    refit_before_relu,
    refit_codebook,
    refit_on_support,
    refit_scales,
)

SEEDS = st.integers(0, 10**6)


@settings(max_examples=40, deadline=None)
@given(seed=SEEDS, outputs=st.integers(1, 8), inputs=st.integers(1, 10), kept=st.floats(0, 1))
def test_a_support_by_rows(seed, outputs, inputs, kept):
    random = np.random.default_rng(seed)
    columns = random.standard_normal((5 * inputs, inputs)) @ random.standard_normal(2 * (inputs,))
    second = columns.T @ columns / len(columns) + 1e-3 * np.eye(inputs)
    target = random.standard_normal((outputs, inputs))
    patterns = random.random((3, inputs)) < kept
    support = patterns[random.integers(3, size=outputs)]
    found = refit_on_support(target, support, second)
    assert not found[~support].any()
    factor = np.linalg.cholesky(second).T
    for row, wanted, pattern in zip(found, target, support, strict=True):
        if pattern.any():
            solved = np.linalg.lstsq(factor[:, pattern], factor @ wanted, rcond=None)[0]
            assert row[pattern] == pytest.approx(solved, rel=1e-6, abs=1e-8)
    masked = np.where(support, target, 0)
    assert cost(target - found, second) <= cost(target - masked, second) * (1 + 1e-9) + 1e-12


def test_a_whole_support_changes_nothing():
    random = np.random.default_rng(0)
    target = random.standard_normal((4, 7))
    found = refit_on_support(target, np.ones((4, 7), bool), second_moment(random, 7))
    assert found == pytest.approx(target)


def test_a_support_that_helps_where_inputs_are_correlated():
    random = np.random.default_rng(1)
    second = damp(second_moment(random, 30), 10**6)
    target = random.standard_normal((20, 30))
    support = np.abs(target) > np.median(np.abs(target))
    masked = cost(target - np.where(support, target, 0), second)
    assert cost(target - refit_on_support(target, support, second), second) < 0.5 * masked


@settings(max_examples=40, deadline=None)
@given(seed=SEEDS, outputs=st.integers(1, 6), inputs=st.integers(1, 8))
def test_scales(seed, outputs, inputs):
    random = np.random.default_rng(seed)
    second = second_moment(random, inputs)
    target = random.standard_normal((outputs, inputs))
    rounded = np.rint(3 * target) / 4
    scales = refit_scales(target, rounded, second)
    for row in range(outputs):

        def lost(scale, row=row):
            return cost(target[row : row + 1] - scale * rounded[row : row + 1], second)

        least, unscaled = lost(scales[row]), lost(1.0)
        assert least <= unscaled * (1 + 1e-9)
        seen = rounded[row] @ second
        if scales[row] != 1:
            assert (scales[row] * rounded[row] - target[row]) @ seen == pytest.approx(0, abs=1e-9)
            assert scales[row] > 0


def test_scales_of_rows_that_give_nothing():
    target = np.array([[1.0, 2], [0, 0], [1, 1], [1, 1]])
    rounded = np.array([[0.0, 0], [1, 1], [-1, -1], [0.5, 0.5]])
    assert refit_scales(target, rounded, np.eye(2)).tolist() == [1, 1, 1, 2]
    assert refit_scales(target, rounded, np.zeros((2, 2))).tolist() == [1, 1, 1, 1]


@settings(max_examples=40, deadline=None)
@given(seed=SEEDS, outputs=st.integers(1, 6), inputs=st.integers(2, 8), size=st.integers(2, 6))
def test_a_codebook(seed, outputs, inputs, size):
    random = np.random.default_rng(seed)
    second = damp(second_moment(random, inputs), 10**6)
    target = random.standard_normal((outputs, inputs))
    scale = random.uniform(0.5, 2, outputs)
    entries = np.sort(random.standard_normal(size))
    codes = np.abs(target[:, :, None] / scale[:, None, None] - entries).argmin(axis=2)
    found = refit_codebook(target, codes.astype(np.uint8), scale, second, entries)

    def lost(book):
        return cost(target - book[codes] * scale[:, None], second)

    assert lost(found) <= lost(entries) * (1 + 1e-6) + 1e-9
    slope = (found[codes] * scale[:, None] - target) @ second * scale[:, None]
    size_of_slope = 1 + np.abs(target @ second).sum()
    for entry in range(size):
        if (codes == entry).any():
            assert slope[codes == entry].sum() == pytest.approx(0, abs=1e-5 * size_of_slope)
        else:
            assert found[entry] == entries[entry]


def test_a_codebook_that_fits_already():
    random = np.random.default_rng(2)
    entries = np.array([-1.0, 0, 2])
    codes = random.integers(3, size=(5, 7))
    scale = random.uniform(0.5, 2, 5)
    target = entries[codes] * scale[:, None]
    found = refit_codebook(target, codes, scale, second_moment(random, 7), entries + 0.3)
    assert found == pytest.approx(entries, abs=1e-6)


def test_a_codebook_of_dead_outputs_stays():
    entries = np.array([-1.0, 1])
    codes = np.zeros((3, 4), np.uint8)
    found = refit_codebook(np.ones((3, 4)), codes, np.zeros(3), np.eye(4), entries)
    assert np.array_equal(found, entries)
    found = refit_codebook(np.ones((3, 4)), codes, np.ones(3), np.zeros((4, 4)), entries)
    assert np.isfinite(found).all()


@settings(max_examples=40, deadline=None)
@given(seed=SEEDS, spread=st.floats(0.6, 1.9))
def test_gain_and_shift_bring_back_mean_and_deviation(seed, spread):
    random = np.random.default_rng(seed)
    original = 3 * random.standard_normal((500, 4)) + random.standard_normal(4)
    repaired = original / spread + random.standard_normal(4)
    moments = [(each.mean(axis=0), each.std(axis=0)) for each in (original, repaired)]
    gain, shift = gain_and_shift(*moments)
    corrected = gain * repaired + shift
    assert corrected.mean(axis=0) == pytest.approx(moments[0][0])
    assert corrected.std(axis=0) == pytest.approx(moments[0][1])
    assert gain == pytest.approx(np.full(4, spread))


def test_gains_are_bounded_and_means_right_all_the_same():
    original = (np.array([1.0, 2, 3, 4, 5]), np.array([10.0, 0.1, 0, 1, 0]))
    repaired = (np.array([5.0, 4, 3, 2, 1]), np.array([1.0, 1, 1, 0, 0]))
    gain, shift = gain_and_shift(original, repaired)
    assert gain.tolist() == [2, 0.5, 1, 1, 1]
    assert gain * repaired[0] + shift == pytest.approx(original[0])


def relu_error(columns, responses, layer):
    given_now = columns @ layer[0].T + layer[1]
    return np.square(np.maximum(responses, 0) - np.maximum(given_now, 0)).sum()


@settings(max_examples=30, deadline=None)
@given(seed=SEEDS, inputs=st.integers(1, 6), outputs=st.integers(1, 5), noise=st.floats(0, 3))
def test_before_a_relu_never_worse(seed, inputs, outputs, noise):
    random = np.random.default_rng(seed)
    columns = random.standard_normal((80, inputs))
    weights, shift = random.standard_normal((outputs, inputs)), random.standard_normal(outputs)
    responses = columns @ weights.T + shift
    start = (
        weights + noise * random.standard_normal(weights.shape),
        shift + noise * random.standard_normal(outputs),
    )
    found = refit_before_relu(columns, responses, *start)
    before = relu_error(columns, responses, start)
    assert relu_error(columns, responses, found) <= before * (1 + 1e-12)


def test_before_a_relu_better_than_least_squares():
    """Two inputs are missing: linear responses cannot be had, those after a ReLU nearly."""
    random = np.random.default_rng(3)
    columns = random.standard_normal((600, 8))
    weights = random.standard_normal((5, 8))
    responses = columns @ weights.T - 0.5
    seen = columns[:, :6]
    with_one = np.column_stack([seen, np.ones(600)])
    solved = np.linalg.lstsq(with_one, responses, rcond=None)[0].T
    start = (solved[:, :-1], solved[:, -1])
    found = refit_before_relu(seen, responses, *start)
    assert relu_error(seen, responses, found) < 0.97 * relu_error(seen, responses, start)


def test_before_a_relu_an_exact_solution_is_recovered():
    random = np.random.default_rng(4)
    columns = random.standard_normal((500, 6))
    weights, shift = random.standard_normal((4, 6)), random.standard_normal(4)
    responses = columns @ weights.T + shift
    start = (weights + 0.3 * random.standard_normal((4, 6)), shift + 0.3)
    found = refit_before_relu(columns, responses, *start, penalties=(0.01,) * 200)
    assert found[0] == pytest.approx(weights, abs=2e-3)
    assert found[1] == pytest.approx(shift, abs=2e-3)


def test_before_a_relu_what_is_exact_stays():
    random = np.random.default_rng(5)
    columns = random.standard_normal((60, 3))
    layer = random.standard_normal((2, 3)), np.zeros(2)
    found = refit_before_relu(columns, columns @ layer[0].T, *layer)
    assert found[0] is layer[0]
