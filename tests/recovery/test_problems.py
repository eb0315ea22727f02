"""Least-squares problems: the minimum is one, and errors are what they say."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from problem_sets import cost, mixed, moments_of, problem_of

from onnxcomp.recovery import Problem, damp, held_out_error
from onnxcomp.statistics import HeldOut


def objective(problem, found):
    """Return mean |V x - W x0|^2 with the ridge that holds on to W, up to a constant."""
    total = 0.0
    for group, (weights, each) in enumerate(zip(problem.weights, found, strict=True)):
        second, cross = problem.second[group], problem.cross[group]
        ridge = problem.damped[group] - second
        total += np.trace(each @ second @ each.T) - 2 * np.trace(weights @ cross @ each.T)
        total += cost(each - weights, ridge)
    return total


@pytest.mark.parametrize("shifts", [True, False])
@pytest.mark.parametrize("groups", [1, 3])
def test_the_target_is_the_minimum(groups, shifts):
    problem, *_ = problem_of(1, groups=groups, shifts=shifts)
    target = problem.target()
    least = objective(problem, target)
    random = np.random.default_rng(2)
    step = 1e-4
    for _ in range(30):
        direction = random.standard_normal(target.shape)
        ahead = objective(problem, target + step * direction)
        behind = objective(problem, target - step * direction)
        assert min(ahead, behind) > least
        assert (ahead - behind) / (2 * step) == pytest.approx(0, abs=1e-6)
    assert least < objective(problem, problem.weights)


@pytest.mark.parametrize("shifts", [True, False])
def test_the_target_is_that_of_least_squares(shifts):
    problem, weights, columns, original = problem_of(3, count=5000, shifts=shifts)
    now, before = columns[0].astype(np.float64), original[0].astype(np.float64)
    if shifts:
        now = np.column_stack([now, np.ones(len(now))])
    solved = np.linalg.lstsq(now, before @ weights[0].T, rcond=None)[0]
    direct = np.linalg.solve(problem.second[0], (weights[0] @ problem.cross[0]).T).T
    assert direct == pytest.approx(solved[: weights.shape[2]].T, rel=1e-3, abs=1e-3)
    # The ridge is small beside so many columns.
    missed = problem.target()[0] - weights[0]
    assert np.linalg.norm(problem.target()[0] - direct) < 0.35 * np.linalg.norm(missed)
    if shifts:
        assert problem.shift(direct[None])[0] == pytest.approx(solved[-1], abs=1e-2)


def test_nothing_changed_upstream_leaves_the_weights():
    problem, weights, *_ = problem_of(4, paired=False)
    assert problem.target() == pytest.approx(weights, rel=1e-9)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10**6), groups=st.integers(1, 3))
def test_the_shift_makes_means_equal(seed, groups):
    problem, weights, columns, original = problem_of(seed, groups=groups)
    found = weights + 0.3 * np.random.default_rng(seed).standard_normal(weights.shape)
    wanted = np.einsum("gni,goi->gno", original.astype(np.float64), weights).mean(axis=1)
    given_now = np.einsum("gni,goi->gno", columns.astype(np.float64), found).mean(axis=1)
    assert given_now + problem.shift(found) == pytest.approx(wanted, abs=1e-5)


@pytest.mark.parametrize("groups", [1, 3])
@pytest.mark.parametrize("paired", [True, False])
def test_means_and_deviations_become_those_of_the_original(groups, paired):
    problem, weights, columns, original = problem_of(4, groups=groups, paired=paired)
    found, shift = problem.corrected(0.7 * problem.target())
    for group in range(groups):
        wanted, alike = (each[group] @ weights[group].T for each in (original, columns))
        given = columns[group] @ found[group].T + shift[group]
        assert given.mean(axis=0) == pytest.approx(wanted.mean(axis=0), abs=1e-4)
        assert given.std(axis=0) == pytest.approx(alike.std(axis=0), rel=1e-4)


def test_nothing_is_corrected_where_there_can_be_no_shift():
    problem, weights, *_ = problem_of(5, shifts=False)
    found, shift = problem.corrected(0.7 * weights)
    assert np.array_equal(found, 0.7 * weights)
    assert not shift.any()


def test_no_shift_where_there_can_be_none():
    problem, weights, *_ = problem_of(5, shifts=False)
    assert np.array_equal(problem.shift(weights + 1), np.zeros((1, 4)))


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10**6), groups=st.integers(1, 3), shifts=st.booleans())
def test_the_error_is_that_of_the_outputs(seed, groups, shifts):
    problem, weights, columns, _ = problem_of(seed, groups=groups, shifts=shifts)
    found = weights + 0.3 * np.random.default_rng(seed).standard_normal(weights.shape)
    exact = columns.astype(np.float64)
    wanted = np.einsum("gni,goi->gno", exact, weights)
    missed = np.einsum("gni,goi->gno", exact, found) - wanted
    if shifts:
        wanted = wanted - wanted.mean(axis=1, keepdims=True)
        missed = missed - missed.mean(axis=1, keepdims=True)
    assert problem.error(found) == pytest.approx(
        np.square(missed).sum() / np.square(wanted).sum(), rel=1e-4
    )
    assert problem.error(weights) == 0


def test_the_error_of_a_layer_that_gives_nothing():
    problem, *_ = problem_of(6)
    silent = Problem.of(
        np.zeros((1, 2, 6)), moments_of(np.ones((1, 9, 6), np.float32)), shifts=True
    )
    assert silent.error(np.ones((1, 2, 6))) == pytest.approx(0, abs=1e-6)
    assert problem.error(problem.weights) == 0


def test_directions_share_their_columns():
    random = np.random.default_rng(7)
    columns = mixed(random, 50, 4)
    weights = random.standard_normal((2, 3, 4))
    problem = Problem.of(weights, moments_of(columns), shifts=True)
    apart = [Problem.of(each[None], moments_of(columns), shifts=True) for each in weights]
    assert problem.target() == pytest.approx(np.concatenate([each.target() for each in apart]))
    found = weights + 0.1
    shifts = np.concatenate(
        [each.shift(found[place : place + 1]) for place, each in enumerate(apart)]
    )
    assert problem.shift(found) == pytest.approx(shifts)


@pytest.mark.parametrize("size", [100, 3000, 1e5])
def test_inputs_that_hardly_vary_beside_their_mean(size):
    """Rounding leaves centred moments indefinite; a solution must be found all the same."""
    random = np.random.default_rng(8)
    columns = (size + 0.01 * random.standard_normal((1, 2000, 12))).astype(np.float32)
    original = (size + 0.01 * random.standard_normal((1, 2000, 12))).astype(np.float32)
    weights = random.standard_normal((1, 3, 12))
    problem = Problem.of(weights, moments_of(columns, original), shifts=True)
    assert np.isfinite(problem.target()).all()
    assert np.isfinite(problem.shift(problem.target())).all()
    for each in problem.damped:
        assert np.all(np.diag(each) > 0)


def with_residual(seed):
    """Return a problem whose outputs should make up for a residual besides, and all its parts."""
    random = np.random.default_rng(seed)
    original, residual = mixed(random, 400, 6), mixed(random, 400, 4)
    columns = original + np.float32(0.3) * mixed(random, 400, 6)
    residual += columns[:, :, :4]
    weights = random.standard_normal((1, 4, 6))
    beside = np.concatenate([original, residual], axis=2)
    problem = Problem.of(weights, moments_of(columns, beside), shifts=True)
    wanted = original[0].astype(np.float64) @ weights[0].T + residual[0]
    return problem, weights, columns[0].astype(np.float64), wanted, beside


def test_a_residual_is_made_up_for():
    problem, weights, columns, wanted, _ = with_residual(11)
    found = problem.target()
    shift = problem.shift(found)
    assert (columns @ found[0].T + shift[0]).mean(axis=0) == pytest.approx(wanted.mean(axis=0))

    def lost(matrix):
        missed = columns @ matrix.T - wanted
        ridge = problem.damped[0] - problem.second[0]
        return missed.var(axis=0).sum() + cost(matrix - weights[0], ridge)

    least = lost(found[0])
    random = np.random.default_rng(12)
    for _ in range(20):
        assert lost(found[0] + 1e-3 * random.standard_normal((4, 6))) > least


def test_the_held_out_error_counts_a_residual():
    _, weights, columns, wanted, beside = with_residual(13)
    found, shift = 1.1 * weights, np.ones((1, 4))
    missed = columns @ found[0].T + 1 - wanted
    expected = np.square(missed).sum() / np.square(wanted - wanted.mean(axis=0)).sum()
    kept = held(columns[None].astype(np.float32), beside)
    assert held_out_error(weights, found, shift, kept) == pytest.approx(expected, rel=1e-5)


def held(columns, original=None):
    found = HeldOut(len(columns), columns.shape[2], 0 if original is None else original.shape[2])
    found.add(columns, original, np.random.default_rng(0))
    return found


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10**6), groups=st.integers(1, 3), paired=st.booleans())
def test_the_held_out_error(seed, groups, paired):
    _, weights, columns, original = problem_of(seed, groups=groups, paired=paired)
    random = np.random.default_rng(seed)
    found = weights + 0.3 * random.standard_normal(weights.shape)
    shift = random.standard_normal(weights.shape[:2])
    wrong = total = 0.0
    for group in range(groups):
        for now, before in zip(columns[group], original[group], strict=True):
            wanted = weights[group] @ before.astype(np.float64)
            given_now = found[group] @ now.astype(np.float64) + shift[group]
            wrong += float(np.square(wanted - given_now).sum())
        outputs = original[group].astype(np.float64) @ weights[group].T
        total += float(np.square(outputs - outputs.mean(axis=0)).sum())
    kept = held(columns, original if paired else None)
    assert held_out_error(weights, found, shift, kept) == pytest.approx(wrong / total, rel=1e-5)


def test_the_held_out_error_of_directions_that_share_columns():
    _, weights, columns, _ = problem_of(9, groups=1, paired=False)
    both = np.concatenate([weights, 2 * weights])
    shift = np.zeros((2, 4))
    alone = held_out_error(weights, 1.1 * weights, shift[:1], held(columns))
    assert held_out_error(both, 1.1 * both, shift, held(columns)) == pytest.approx(alone)


def test_held_out_columns_that_give_nothing():
    columns = np.ones((1, 5, 3), np.float32)
    weights = np.ones((1, 2, 3))
    assert held_out_error(weights, weights, np.zeros((1, 2)), held(columns)) == 0
    assert held_out_error(weights, 2 * weights, np.zeros((1, 2)), held(columns)) == 90


def test_damped_moments_are_those_of_the_columns():
    problem, *_ = problem_of(10, groups=2)
    for each, second in zip(problem.damped, problem.second, strict=True):
        assert np.array_equal(each, damp(second, problem.count))
