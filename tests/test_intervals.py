"""Intervals of medians that were measured in blocks."""

import numpy as np
import pytest

from onnxcomp.intervals import MANY, interval_of, mean_interval, unseen_share


def test_the_interval_holds_the_median():
    found = interval_of([[1.0] * 5] * 5 + [[2.0] * 5])
    assert (found.median, found.low) == (1.0, 1.0)
    assert found.high >= 1.0


def test_the_same_blocks_give_the_same_interval():
    blocks = [[1.0, 2.0], [3.0], [2.5, 1.5, 4.0]]
    assert interval_of(blocks) == interval_of(blocks)
    assert 1.0 <= interval_of(blocks).low <= interval_of(blocks).high <= 4.0


@pytest.mark.parametrize("spread", [0.0, 0.01, 0.02])
def test_it_holds_the_truth_where_blocks_differ(spread):
    random = np.random.default_rng(0)
    held = 0
    for _ in range(100):
        own = 1.0 + spread * random.standard_normal((6, 1))
        found = interval_of((own + 0.01 * random.standard_normal((6, 5))).tolist())
        held += found.low <= 1.0 <= found.high
    assert held >= 80


@pytest.mark.parametrize("count", range(2, 6))
def test_it_holds_the_truth_of_few_ratios(count):
    random = np.random.default_rng(0)
    found = [interval_of([np.exp(random.standard_normal(count)).tolist()]) for _ in range(400)]
    held = sum(each.low <= 1.0 <= each.high for each in found)
    assert 360 <= held <= 392
    assert all(each.low <= each.median <= each.high for each in found)


def test_blocks_that_differ_make_it_wider():
    noise = np.random.default_rng(0).standard_normal(30)
    alike, apart = (interval_of(each.reshape(6, 5)) for each in (noise, np.sort(noise)))
    assert alike.median == apart.median
    assert apart.high - apart.low > 1.2 * (alike.high - alike.low)


def test_a_mean_of_items_and_of_many():
    random = np.random.default_rng(0)
    for count in (400, MANY + 1):
        items = random.random(count)
        low, high = mean_interval(items)
        half = 1.96 * items.std() / count**0.5
        assert (low, high) == pytest.approx((items.mean() - half, items.mean() + half), rel=0.02)
    assert mean_interval(np.array([0.5])) == (0.5, 0.5)


def test_the_rule_of_three():
    assert unseen_share(1) == pytest.approx(0.95)
    assert unseen_share(300) == pytest.approx(3 / 300, rel=0.01)
