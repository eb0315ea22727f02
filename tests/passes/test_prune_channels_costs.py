"""What channels cost, by the definition; how many go, within their budgets."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnxcomp.recovery import Problem
from onnxcomp.statistics import Moments
from onnxcomp_passes.prune_channels.allocating import (
    cheapest_within,
    uniform,
    uniform_within,
)
from onnxcomp_passes.prune_channels.costs import (
    Fixed,
    SecondOrder,
    activation,
    magnitude,
    removal_curve,
    variance,
)


def problem_of(random, *, channels, width, outputs=5, groups=1, twins=False):
    """Return a layer whose inputs are correlated, and the inputs that each channel is."""
    inputs = channels * width
    columns = random.standard_normal((groups, 40 * inputs, inputs))
    columns = columns @ (np.eye(inputs) + 0.4 * random.standard_normal((groups, inputs, inputs)))
    if twins:
        columns[..., inputs // 2 :] = columns[..., : inputs // 2]
    moments = Moments(groups, inputs)
    moments.add(columns.astype(np.float32))
    weights = random.standard_normal((groups, outputs, inputs))
    places = np.arange(inputs).reshape(channels, width)
    return Problem.of(weights, moments, shifts=True), np.stack([places] * groups)


def least_error(problem, gone):
    """Return what outputs lose at least without some inputs, by least squares on the others."""
    lost = 0.0
    for weights, damped, places in zip(problem.weights, problem.damped, gone, strict=True):
        left = np.setdiff1d(np.arange(len(damped)), places)
        found = np.zeros_like(weights)
        inner = np.linalg.inv(damped[np.ix_(left, left)])
        found[:, left] = (weights @ damped)[:, left] @ inner
        missed = weights - found
        lost += np.trace(missed @ damped @ missed.T)
    return lost / variance(problem)


@given(
    seed=st.integers(0, 1000),
    channels=st.integers(2, 6),
    width=st.sampled_from([1, 3]),
    groups=st.sampled_from([1, 2]),
)
@settings(max_examples=20, deadline=None)
def test_second_order_costs_are_the_true_ones(seed, channels, width, groups):
    problem, columns = problem_of(
        np.random.default_rng(seed), channels=channels, width=width, groups=groups
    )
    alone = SecondOrder(problem, columns).costs()
    for channel in range(channels):
        assert alone[channel] == pytest.approx(least_error(problem, columns[:, channel]), rel=1e-6)
    curve = removal_curve([SecondOrder(problem, columns)], channels, channels - 1)
    assert len(set(curve.order.tolist())) == channels - 1
    assert np.all(np.diff(curve.costs) >= 0)
    for count in range(channels):
        gone = columns[:, curve.order[:count]].reshape(groups, -1)
        assert curve.costs[count] == pytest.approx(least_error(problem, gone), rel=1e-6, abs=1e-12)


def test_of_twins_one_goes():
    problem, columns = problem_of(np.random.default_rng(1), channels=8, width=1, twins=True)
    curve = removal_curve([SecondOrder(problem, columns)], 8, 6)
    assert sorted(curve.order[:4] % 4) == [0, 1, 2, 3]
    assert curve.costs[4] < 0.02 < curve.costs[5]


def test_the_cost_of_several_layers_is_their_sum():
    random = np.random.default_rng(2)
    problem, columns = problem_of(random, channels=6, width=1)
    other = random.random(6)
    curve = removal_curve([SecondOrder(problem, columns), Fixed(other)], 6, 3)
    gone = columns[:, curve.order].reshape(1, -1)
    expected = least_error(problem, gone) + other[curve.order].sum()
    assert curve.costs[-1] == pytest.approx(expected, rel=1e-6)


def test_activations_and_magnitudes_cost_what_they_say():
    problem, columns = problem_of(np.random.default_rng(3), channels=4, width=2)
    squares = np.square(problem.weights[0]).sum(axis=0)
    expected = (squares * np.diag(problem.second[0])).reshape(4, 2).sum(axis=1)
    assert activation(problem, columns).each == pytest.approx(expected / variance(problem))
    assert magnitude(squares).costs().sum() == pytest.approx(1)
    assert removal_curve([magnitude(np.array([3.0, 1.0, 2.0]))], 3, 2).order.tolist() == [1, 2]


def test_large_groups_go_in_chunks():
    squares = np.random.default_rng(4).random(600)
    curve = removal_curve([magnitude(squares)], 600, 500)
    assert curve.order.tolist() == np.argsort(squares, kind="stable")[:500].tolist()
    assert curve.costs[-1] == pytest.approx(np.sort(squares)[:500].sum() / squares.sum())


counts = st.integers(1, 6).map(lambda n: list(range(4 * n, 0, -4)))


@given(
    options=st.lists(counts, min_size=1, max_size=5),
    share=st.floats(0.05, 1.0),
    data=st.data(),
)
@settings(max_examples=60, deadline=None)
def test_budgets_hold(options, share, data):
    whole = np.array([each[0] for each in options])
    sizes = np.array([data.draw(st.floats(0.5, 5)) for _ in options])
    costs = [
        np.cumsum([0.0, *data.draw(st.lists(st.floats(0, 9), min_size=n, max_size=n))])
        for n in (len(each) - 1 for each in options)
    ]

    def measure(removed):
        return ((whole - removed) * sizes).prod(axis=1)

    goal = share * float(measure(np.zeros((1, len(whole))))[0])
    least = float(measure(whole[None] - np.array([each[-1] for each in options]))[0])
    for found in (
        cheapest_within(options, [each.tolist() for each in costs], measure, goal),
        uniform_within(options, measure, goal),
    ):
        if found is None:
            assert least > goal * (1 - 1e-12)
            continue
        assert float(measure(whole[None] - np.array(found))[0]) <= goal
        assert all(count in each for count, each in zip(found, options, strict=True))


def test_what_costs_nothing_goes_first_and_no_more_than_needed():
    options = [[8, 4], [8, 4], [8, 4]]
    costs = [[0.0, 1.0], [0.0, 0.0], [0.0, 5.0]]
    found = cheapest_within(options, costs, lambda gone: 24.0 - gone.sum(axis=1), 20)
    assert found == [8, 4, 8]
    # The first step is the best one for what it saves, and then not needed any more.
    sizes = np.array([1.0, 3.0])
    measure = lambda gone: (sizes * (np.array([8, 8]) - gone)).sum(axis=1)  # noqa: E731
    found = cheapest_within([[8, 4], [8, 4]], [[0.0, 1.0], [0.0, 4.0]], measure, 20)
    assert found == [8, 4]


def test_uniform_takes_the_nearest_count():
    assert uniform([[64, 48, 32], [24, 16, 8]], 0.3) == [48, 16]
    assert uniform([[64, 48, 32], [24, 16, 8]], 0.01) == [64, 24]
