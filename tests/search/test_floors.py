"""How near to the floor a trial is, and what items that are few say of others."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import truncnorm

from onnxcomp.runtime.evaluation import Metric, Score
from onnxcomp.search.floors import INTERVAL_ERRORS, expected_drop

DROPS = st.floats(-0.5, 0.5)
ERRORS = st.floats(0.02, 0.5)


def measured(drop, error):
    half = error * INTERVAL_ERRORS / 2
    return Metric(original=0.9, result=0.9 - drop, items=50, low=drop - half, high=drop + half)


@given(DROPS, ERRORS)
def test_it_is_the_mean_of_what_is_left_of_the_distribution(drop, error):
    wanted = truncnorm.mean(-drop / error, np.inf, loc=drop, scale=error)
    assert expected_drop(measured(drop, error)) == pytest.approx(wanted, rel=1e-3, abs=1e-6)


@given(DROPS, ERRORS)
def test_neither_below_the_drop_nor_below_nothing(drop, error):
    assert expected_drop(measured(drop, error)) >= max(0.0, drop) - 1e-9


def test_many_items_speak_for_themselves():
    assert expected_drop(measured(0.01, 1e-3)) == pytest.approx(0.01, abs=1e-6)


def test_a_gain_that_many_items_agree_on_costs_nothing():
    assert expected_drop(measured(-0.1, 1e-3)) == pytest.approx(0.0, abs=1e-4)


def test_a_gain_of_all_items_alike_costs_nothing():
    assert expected_drop(Metric.of(Score(0.5, np.full(4, 0.5)), Score(1.0, np.ones(4)))) == 0.0


def test_a_number_without_items_is_taken_as_it_is():
    assert expected_drop(Metric(original=0.5, result=0.6)) == pytest.approx(-0.1)


def test_what_changes_nothing_costs_nothing():
    items = np.array([1.0, 0.0, 1.0])
    assert expected_drop(Metric.of(Score(2 / 3, items), Score(2 / 3, items))) == 0.0
