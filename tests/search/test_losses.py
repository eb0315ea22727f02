"""How near to the floor a trial is, and what items that are few say of others."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import truncnorm

from onnxcomp import Settings, compare
from onnxcomp.api import floors_of
from onnxcomp.intervals import ERRORS
from onnxcomp.runtime.comparison import OutputComparison
from onnxcomp.search.floors import expected_drop, loss_of
from onnxcomp.validation import Metric, Validation

DROPS = st.floats(-0.5, 0.5)
SPREADS = st.floats(0.02, 0.5)


def expected(drop, error):
    half = error * ERRORS
    return expected_drop(drop, (drop - half, drop + half))


@given(DROPS, SPREADS)
def test_it_is_the_mean_of_what_is_left_of_the_distribution(drop, error):
    wanted = truncnorm.mean(-drop / error, np.inf, loc=drop, scale=error)
    assert expected(drop, error) == pytest.approx(wanted, rel=1e-3, abs=1e-6)


@given(DROPS, SPREADS)
def test_neither_below_the_drop_nor_below_nothing(drop, error):
    assert expected(drop, error) >= max(0.0, drop) - 1e-9


def test_many_items_speak_for_themselves():
    assert expected(0.01, 1e-3) == pytest.approx(0.01, abs=1e-6)


def test_a_gain_that_many_items_agree_on_costs_nothing():
    assert expected(-0.1, 1e-3) == pytest.approx(0.0, abs=1e-4)


def test_a_gain_of_all_items_alike_costs_nothing():
    assert expected_drop(-0.1, (-0.1, -0.1)) == 0.0


def test_a_number_without_items_is_taken_as_it_is():
    assert expected_drop(-0.1, None) == -0.1


def test_what_changes_nothing_costs_nothing():
    assert expected_drop(0.0, (0.0, 0.0)) == 0.0


def validation_of(snr_db, agreement=None):
    found = OutputComparison(
        name="y",
        dtype="float32",
        cosine=1.0,
        snr_db=snr_db,
        squared_error=0.0,
        max_abs=1.0,
        agreement=agreement,
    )
    return Validation(provider="cpu", samples=8, synthetic=False, outputs=(found,))


@pytest.mark.parametrize(
    ("settings", "snr_db", "agreement", "strain"),
    [
        (Settings(min_snr=20), 20.0, None, 1.0),
        (Settings(min_snr=20), 10.0, None, 10.0),
        (Settings(min_snr=20), np.inf, None, 0.0),
        (Settings(min_snr=20), -np.inf, None, np.inf),
        (Settings(max_drop=0.1), 20.0, 0.95, 0.5),
        (Settings(max_drop=0.1), 20.0, None, np.inf),
        (Settings(max_drop=0), 20.0, 1.0, 0.0),
        (Settings(max_drop=0), 20.0, 0.99, np.inf),
        (Settings(min_snr=20, max_drop=0.1), 30.0, 0.8, 2.0),
        (Settings(), 0.0, 0.0, 0.0),
    ],
)
def test_the_strain_says_whether_a_floor_is_missed(report, settings, snr_db, agreement, strain):
    measured = report.model_copy(update={"validation": (validation_of(snr_db, agreement),)})
    loss = loss_of(measured, settings)
    assert loss.strain == pytest.approx(strain)
    assert bool(loss.missed) == (strain > 1)


def test_nothing_that_changed_is_no_loss_however_few_the_samples(report):
    untouched = Metric(original=0.9, result=0.9, items=20, changed=0, low=-0.1, high=0.1)
    measured = report.model_copy(update={"metric": untouched})
    settings = Settings(max_drop=0.01, evaluate="metric.py:score")
    assert loss_of(measured, settings).strain == 0.0
    (floor,) = floors_of(measured, settings)
    assert floor.verdict == "unclear"
    both_ways = untouched.model_copy(update={"changed": 4})
    measured = report.model_copy(update={"metric": both_ways})
    assert loss_of(measured, settings).strain > 1


@pytest.fixture(scope="module")
def report(models):
    original = models["dynamic_batch"].proto
    return compare(original, original, settings=Settings(validation=False, bench=False))
