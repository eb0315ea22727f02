"""The choice of one option for each thing: it fits, and it is the best that fits."""

from itertools import product
from math import inf, isclose, nan

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnxcomp import allocation
from onnxcomp.allocation import Option, allocate

COSTS = st.one_of(st.just(0.0), st.just(inf), st.floats(0, 100, width=32))
SMALL = st.lists(
    st.lists(st.builds(Option, st.integers(0, 40), COSTS), min_size=1, max_size=4), max_size=4
)
LARGE = st.lists(
    st.lists(
        st.builds(Option, st.integers(0, 10**9), st.floats(0, 100, width=32)),
        min_size=1,
        max_size=4,
    ),
    min_size=1,
    max_size=4,
)


def size(options, chosen):
    return sum(each[place].nbytes for each, place in zip(options, chosen, strict=True))


def cost(options, chosen):
    return sum(each[place].cost for each, place in zip(options, chosen, strict=True))


def least_bytes(options):
    return sum(min(option.nbytes for option in each) for each in options)


def best_cost(options, budget):
    """Return the cost of the best choice by trying them all; None where none fits."""
    every = product(*(range(len(each)) for each in options))
    return min(
        (cost(options, each) for each in every if size(options, each) <= budget), default=None
    )


@settings(max_examples=400, deadline=None)
@given(options=SMALL, budget=st.integers(-5, 160))
def test_as_good_as_trying_all(options, budget):
    chosen = allocate(options, budget)
    best = best_cost(options, budget)
    assert (chosen is None) == (best is None) == (least_bytes(options) > budget)
    if chosen is not None:
        assert size(options, chosen) <= budget
        found = cost(options, chosen)
        assert found == best or isclose(found, best, rel_tol=1e-9)


@settings(max_examples=100, deadline=None)
@given(options=LARGE, spare=st.integers(-1, 4 * 10**9))
def test_large_budgets_are_rounded(options, spare):
    budget = least_bytes(options) + spare
    chosen = allocate(options, budget)
    assert (chosen is None) == (spare < 0)
    if chosen is None:
        return
    assert size(options, chosen) <= budget
    # Each thing wastes less than a step.
    step = max(1, -(-spare // allocation.BUCKETS))
    wasted = step * (len(options) + 1)
    assert cost(options, chosen) >= best_cost(options, budget) - 1e-6
    if wasted <= spare:
        assert cost(options, chosen) <= best_cost(options, budget - wasted) + 1e-6


@pytest.mark.parametrize(("budget", "expected"), [(-1, None), (0, []), (10, [])])
def test_nothing_to_choose_for(budget, expected):
    assert allocate([], budget) == expected


@pytest.mark.parametrize(("budget", "expected"), [(11, None), (12, [0, 0]), (10**12, [0, 0])])
def test_one_option_each(budget, expected):
    assert allocate([[Option(5, 1.0)], [Option(7, inf)]], budget) == expected


def test_what_costs_infinitely_much_is_the_last_resort():
    options = [[Option(1, inf), Option(5, 2.0)], [Option(1, inf), Option(5, 1.0)]]
    assert allocate(options, 10) == [1, 1]
    # Whatever is chosen, it fits.
    for budget in range(2, 10):
        assert size(options, allocate(options, budget)) <= budget


def test_only_infinite_costs_fit():
    assert allocate([[Option(10, inf), Option(5, inf)]], 5) == [1]
    assert allocate([[Option(10, 0.0), Option(5, inf)]] * 3, 15) == [1, 1, 1]


def test_the_budget_goes_where_it_saves_most():
    cheap = [Option(1, 1.0), Option(4, 0.5)]
    sensitive = [Option(1, 90.0), Option(4, 10.0)]
    assert allocate([cheap, sensitive, cheap], 6) == [0, 1, 0]
    assert allocate([cheap, sensitive, cheap], 9) in ([1, 1, 0], [0, 1, 1])
    assert allocate([cheap, sensitive, cheap], 12) == [1, 1, 1]


def test_what_is_not_known_is_the_last_resort():
    unknown, known = Option(1, nan), Option(5, 2.0)
    assert allocate([[unknown, known], [unknown, known]], 10) == [1, 1]
    assert allocate([[unknown, known], [unknown, known]], 6) in ([0, 1], [1, 0])
