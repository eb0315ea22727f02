"""Error feedback: bounds that hold for any grid and any second moment."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from problem_sets import cost, second_moment

from onnxcomp.recovery import Feedback, damp
from onnxcomp.recovery.feedback import BLOCK

STEP = np.float32(0.4)


def on_grid(columns, _metric):
    return np.rint(columns / STEP) * STEP


def nearest_vectors(book):
    """Return what rounds the columns of a block to entries of a book, in the metric."""

    def rounded(columns, metric):
        missed = np.einsum("kw,ekn->ewn", metric.T, columns[None] - book[:, :, None])
        return book[np.square(missed).sum(axis=1).argmin(axis=0)].T

    return rounded


@pytest.mark.parametrize("width", [1, 2, 4])
@pytest.mark.parametrize("inputs", [8, 16, BLOCK + 20])
def test_better_than_the_nearest_on_average(width, inputs):
    gains = []
    for seed in range(12 if inputs < BLOCK else 3):
        random = np.random.default_rng(seed)
        second = second_moment(random, inputs)
        weights = random.standard_normal((10, inputs))
        book = random.standard_normal((16 * width, width)).astype(np.float32)
        rounded = on_grid if width == 1 else nearest_vectors(book)
        damped = damp(second, 10**6)
        found = Feedback(damped, width).round(weights, rounded)
        parts = weights.astype(np.float32).T.reshape(-1, width, len(weights))
        identity = np.eye(width, dtype=np.float32)
        nearest = np.concatenate([rounded(part, identity) for part in parts]).T
        gains.append(cost(weights - nearest, damped) / cost(weights - found, damped))
        assert not np.array_equal(found, nearest)
    # The inputs are strongly correlated.
    assert np.exp(np.mean(np.log(gains))) > 1.3
    assert min(gains) > 0.9


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), inputs=st.integers(1, 12), outputs=st.integers(1, 4))
def test_all_results_are_on_the_grid(seed, inputs, outputs):
    random = np.random.default_rng(seed)
    weights = random.standard_normal((outputs, inputs))
    found = Feedback(damp(second_moment(random, inputs), 100)).round(weights, on_grid)
    assert found.shape == weights.shape
    assert np.array_equal(found, np.rint(found / STEP) * STEP)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_the_cost_is_never_above_that_of_rounding_each_column_by_itself(seed):
    """By its factor, the cost is a sum of |metric e|^2, each within half a step of its column."""
    random = np.random.default_rng(seed)
    damped = damp(second_moment(random, 9), 10**6)
    weights = random.standard_normal((5, 9))
    found = Feedback(damped).round(weights, on_grid)
    order = np.argsort(-np.diag(damped), kind="stable")
    lower = np.linalg.cholesky(damped[np.ix_(order[::-1], order[::-1])])
    # 1 / factor[j, j]^2 is what column j costs once all later ones make up for it.
    conditional = np.square(np.diag(lower))
    assert cost(weights - found, damped) <= 5 * (STEP / 2) ** 2 * conditional.sum() * 1.001


@pytest.mark.parametrize("width", [1, 4])
def test_blocks_do_not_matter(width, monkeypatch):
    random = np.random.default_rng(6)
    feedback = Feedback(damp(second_moment(random, 32), 10**6), width)
    weights = random.standard_normal((5, 32))
    whole = feedback.round(weights, on_grid)
    monkeypatch.setattr("onnxcomp.recovery.feedback.BLOCK", 8)
    assert np.array_equal(feedback.round(weights, on_grid), whole)


def test_without_correlation_it_is_the_nearest():
    random = np.random.default_rng(0)
    weights = random.standard_normal((6, 20))
    damped = np.diag(random.uniform(0.5, 2, 20))
    found = Feedback(damped).round(weights, on_grid)
    assert np.array_equal(found, on_grid(weights.astype(np.float32), None))


@pytest.mark.parametrize("width", [1, 2, 4])
def test_what_is_on_the_grid_stays(width):
    random = np.random.default_rng(1)
    weights = np.rint(4 * random.standard_normal((6, 16))).astype(np.float32) * STEP
    feedback = Feedback(damp(second_moment(random, 16), 10**6), width)
    assert np.array_equal(feedback.round(weights, on_grid), weights)


def test_strong_columns_come_first():
    seen = []

    def noted(columns, metric):
        del metric
        seen.append(float(columns[0, 0]))
        return columns

    Feedback(np.diag([1.0, 4.0, 2.0, 3.0])).round(np.array([[0.0, 1.0, 2.0, 3.0]]), noted)
    assert seen == [1, 3, 2, 0]
    seen.clear()
    Feedback(np.diag([1.0, 4.0, 2.0, 4.0]), 2).round(np.array([[0.0, 1.0, 2.0, 3.0]]), noted)
    assert seen == [2, 0]


def test_the_metric_is_what_an_error_costs():
    """After a block of columns is rounded, the best later ones leave |metric e|^2 of its error."""
    random = np.random.default_rng(2)
    damped = damp(second_moment(random, 6), 10**6)
    strength = np.diag(damped).reshape(-1, 2).sum(axis=1)
    first = 2 * int(np.argmax(strength)) + np.arange(2)
    metrics = []

    def noted(columns, metric):
        metrics.append(metric)
        return columns

    Feedback(damped, 2).round(random.standard_normal((1, 6)), noted)
    others = np.setdiff1d(np.arange(6), first)
    schur = damped[np.ix_(first, first)] - damped[np.ix_(first, others)] @ np.linalg.solve(
        damped[np.ix_(others, others)], damped[np.ix_(others, first)]
    )
    assert metrics[0].T @ metrics[0] == pytest.approx(schur, rel=1e-4)


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    width=st.integers(1, 20),
    count=st.integers(1, 30),
    dead=st.sets(st.integers(0, 19)),
    scale=st.sampled_from([1e-12, 1e-3, 1, 1e6]),
)
def test_damped_is_positive_definite(seed, width, count, dead, scale):
    random = np.random.default_rng(seed)
    columns = random.standard_normal((count, width))
    columns[:, [each for each in dead if each < width]] = 0
    second = scale * columns.T @ columns / count
    damped = damp(second, count)
    np.linalg.cholesky(damped)
    level = np.diag(second).mean() or 1
    assert np.linalg.eigvalsh(damped)[0] > 0.009 * level
    found = Feedback(damped).round(random.standard_normal((2, width)), on_grid)
    assert np.isfinite(found).all()


@pytest.mark.parametrize("count", [0, 1, 100])
def test_damping_nothing(count):
    damped = damp(np.zeros((5, 5)), count)
    assert damped == pytest.approx(1.01 * np.eye(5))


def test_damping_changes_little_where_columns_are_many():
    second = second_moment(np.random.default_rng(3), 10)
    before = second.copy()
    damped = damp(second, 40)
    assert np.array_equal(second, before)
    expected = second + 0.01 * np.diag(second).mean() * np.eye(10)
    assert damped == pytest.approx(expected, rel=1e-12)
    shrunk = damp(second, 10)
    others = ~np.eye(10, dtype=bool)
    assert shrunk[others] == pytest.approx(second[others] / 2)
    assert np.diag(shrunk) == pytest.approx(np.diag(expected))


def test_a_second_moment_that_rounding_made_indefinite():
    """As a constant input of a large size leaves it, once its mean is taken away."""
    random = np.random.default_rng(4)
    second = second_moment(random, 8)
    vectors = np.linalg.qr(random.standard_normal((8, 8)))[0]
    second = second - 3 * np.diag(second).mean() * np.outer(vectors[0], vectors[0])
    assert np.linalg.eigvalsh(second)[0] < 0
    found = Feedback(second).round(random.standard_normal((3, 8)), on_grid)
    assert np.isfinite(found).all()


def test_what_stays_singular_is_an_error():
    with pytest.raises(np.linalg.LinAlgError, match=r"^the second moment stays singular$"):
        Feedback(-np.eye(2))
