"""Which weights become zero: exactly as many as asked, where asked, and those that cost least."""

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnxcomp.recovery import damp, refit_on_support, support_of
from onnxcomp_passes.prune.alternating import alternating_mask
from onnxcomp_passes.prune.masks import Pattern
from onnxcomp_passes.prune.scoring import Sweep, input_scores, magnitude_scores

SHAPES = st.tuples(st.integers(1, 3), st.integers(1, 9), st.integers(1, 20))


def second_moment(random, width, groups=1):
    columns = random.standard_normal((groups, 6 * width, width))
    columns = columns @ (np.eye(width) + random.standard_normal((groups, width, width)) / 3)
    return np.stack([damp(each.T @ each / len(each), len(each)) for each in columns])


def cost(weights, found, second):
    missed = weights - found
    return float(np.einsum("goi,gij,goj->", missed, second, missed))


def fitted(weights, mask, second):
    return np.stack([refit_on_support(*each) for each in zip(weights, mask, second, strict=True)])


@settings(max_examples=60, deadline=None)
@given(SHAPES, st.floats(0.01, 0.99), st.integers(0, 99))
def test_the_share_is_reached_exactly_whatever_the_scores(shape, sparsity, seed):
    # Few different scores, so that many are equal.
    scores = np.random.default_rng(seed).integers(0, 4, shape).astype(float)
    mask = Pattern().keep(scores, sparsity)
    assert np.count_nonzero(~mask) == round(sparsity * mask.size)
    assert not mask.any() or mask.all() or scores[mask].min() >= scores[~mask].max()
    by_row = Pattern(by_row=True).keep(scores, sparsity)
    assert np.all(np.count_nonzero(~by_row, axis=2) == round(sparsity * shape[2]))


@settings(max_examples=60, deadline=None)
@given(SHAPES, st.integers(1, 7), st.integers(1, 8), st.integers(0, 99))
def test_exactly_n_of_m(shape, kept, more, seed):
    group = kept + more
    scores = np.random.default_rng(seed).standard_normal(shape) ** 2
    mask = Pattern(kept, group).keep(scores, 0.1)
    whole = shape[2] // group * group
    split = mask[:, :, :whole].reshape(*shape[:2], -1, group)
    assert np.all(np.count_nonzero(split, axis=3) == kept)
    assert np.all(np.count_nonzero(mask[:, :, whole:], axis=2) == min(kept, shape[2] - whole))


@settings(max_examples=40, deadline=None)
@given(SHAPES, st.integers(2, 6), st.floats(0.1, 0.9), st.integers(0, 99))
def test_blocks_become_zero_together(shape, block, sparsity, seed):
    scores = np.random.default_rng(seed).standard_normal(shape) ** 2
    mask = Pattern(block=block).keep(scores, sparsity)
    for start in range(0, shape[2], block):
        part = mask[:, :, start : start + block]
        assert np.all(part.all(axis=2) | ~part.any(axis=2))


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 999), st.sampled_from([0.3, 0.5, 0.7]), st.booleans())
def test_second_order_masks_cost_no_more_than_magnitude(seed, sparsity, by_row):
    random = np.random.default_rng(seed)
    weights, second = random.standard_normal((2, 12, 24)), second_moment(random, 24, 2)
    pattern = Pattern(by_row=by_row)
    mask = Sweep(second, pattern, np.arange(24)).mask(weights, sparsity)
    plain = pattern.keep(magnitude_scores(weights), sparsity)
    assert np.count_nonzero(mask) == np.count_nonzero(plain)
    best = cost(weights, fitted(weights, mask, second), second)
    assert best <= cost(weights, np.where(plain, weights, 0), second)
    assert best <= cost(weights, np.where(mask, weights, 0), second) * (1 + 1e-6)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 999), st.sampled_from([(2, 4), (1, 3), (4, 8)]))
def test_second_order_n_of_m(seed, pair):
    random = np.random.default_rng(seed)
    kept, group = pair
    weights, second = random.standard_normal((1, 10, 24)), second_moment(random, 24)
    pattern = Pattern(kept, group)
    mask = Sweep(second, pattern, np.arange(24)).mask(weights, 0.5)
    assert np.all(np.count_nonzero(mask.reshape(1, 10, -1, group), axis=3) == kept)
    plain = pattern.keep(magnitude_scores(weights), 0.5)
    least = cost(weights, np.where(plain, weights, 0), second)
    assert cost(weights, fitted(weights, mask, second), second) <= least


def test_one_group_is_pruned_in_the_best_way():
    random = np.random.default_rng(3)
    weights, second = random.standard_normal((1, 5, 4)), second_moment(random, 4)
    mask = Sweep(second, Pattern(2, 4), np.arange(4)).mask(weights, 0.5)
    for row in range(5):
        one = weights[:, row : row + 1]
        every = []
        for chosen in combinations(range(4), 2):
            stay = np.isin(np.arange(4), chosen)[None, None]
            every.append(cost(one, fitted(one, stay, second), second))
        stays = mask[:, row : row + 1]
        assert cost(one, fitted(one, stays, second), second) == pytest.approx(min(every))


def test_neighbours_may_lie_apart():
    random = np.random.default_rng(4)
    weights, second = random.standard_normal((1, 6, 12)), second_moment(random, 12)
    order = np.arange(12).reshape(4, 3).T.reshape(-1)
    mask = Sweep(second, Pattern(2, 4), order).mask(weights, 0.5)
    assert np.all(np.count_nonzero(mask[:, :, order].reshape(1, 6, 3, 4), axis=3) == 2)


def test_independent_inputs_are_chosen_by_their_strength():
    random = np.random.default_rng(5)
    weights = random.standard_normal((1, 8, 16))
    second = np.diag(random.uniform(0.1, 5, 16))[None]
    mask = Sweep(second, Pattern(), np.arange(16)).mask(weights, 0.5)
    np.testing.assert_array_equal(mask, Pattern().keep(input_scores(weights, second), 0.5))


@pytest.mark.parametrize("has_start", [False, True])
def test_many_supports_are_fitted_as_well_as_few(has_start):
    random = np.random.default_rng(6)
    second, target = second_moment(random, 150)[0], random.standard_normal((700, 150))
    support = random.random(target.shape) < 0.5
    start = target + random.standard_normal(target.shape) if has_start else None
    found = refit_on_support(target, support, second, start)
    exact = np.stack(
        [
            refit_on_support(target[row : row + 1], support[row : row + 1], second)[0]
            for row in range(0, 700, 50)
        ]
    )
    assert not found[~support].any()

    def lost(difference):
        return np.sum(difference @ second * difference, axis=1)

    assert np.all(lost(found[::50] - exact) <= 1e-4 * lost(target[::50]))
    np.testing.assert_allclose(found[::50], exact, atol=0.02 * np.abs(exact).max())


def test_what_counts_as_pruned():
    values = np.ones((10, 10))
    assert support_of(values) is None
    values[0, :4] = 0
    assert support_of(values) is None
    values[1] = 0
    np.testing.assert_array_equal(support_of(values), values != 0)


@pytest.mark.parametrize("pattern", [Pattern(), Pattern(2, 4), Pattern(by_row=True)])
def test_masks_found_by_turns_cost_less_and_keep_to_the_pattern(pattern):
    random = np.random.default_rng(7)
    weights, second = random.standard_normal((2, 16, 24)), second_moment(random, 24, 2)
    start = pattern.keep(magnitude_scores(weights), 0.5)
    found = alternating_mask(weights, start, second, pattern, 0.5, np.arange(24))
    # A mask keeps to the pattern if choosing by it changes nothing.
    np.testing.assert_array_equal(found, pattern.keep(found.astype(float), 0.5))
    before, after = (
        cost(weights, fitted(weights, each, second), second) for each in (start, found)
    )
    assert after < before
