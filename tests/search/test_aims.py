"""What makes one result better than another."""

from math import inf

import pytest

from onnxcomp import Limits
from onnxcomp.report import Trial
from onnxcomp.search.aims import Aim

BYTES = 1000


def trial(count, latency, low):
    return Trial(
        number=0,
        recipe={},
        status="kept",
        reason="",
        bytes=count,
        drop=0.0,
        strain=0.0,
        snr_db=30.0,
        latency_ratio=latency,
        latency_low=low,
        latency_high=None if latency is None else latency + 0.01,
        seconds=1.0,
    )


@pytest.mark.parametrize(
    ("goal", "count", "latency", "low", "objective"),
    [
        ("size", 250, 1.04, 1.01, 0.25),
        ("size", 250, 1.04, 1.03, inf),
        ("size", 250, 0.5, 0.4, 0.25),
        ("speed", 1000, 0.5, 0.4, 0.5),
        ("speed", 1001, 0.5, 0.4, inf),
        ("speed", 500, 0.98, 0.97, 0.98),
        ("speed", 500, 0.99, 0.98, inf),
        ("speed", 500, 0.995, 0.97, inf),
        ("balanced", 250, 0.25, 0.2, 0.25),
    ],
)
def test_the_objective(goal, count, latency, low, objective):
    found = Aim(goal=goal).objective(trial(count, latency, low), BYTES, Limits())
    assert found == objective


@pytest.mark.parametrize(
    ("limits", "objective"),
    [
        (Limits(min_size_ratio=2), 0.5),
        (Limits(min_size_ratio=8), 2.0),
        (Limits(max_latency_ratio=0.4), 0.5),
        (Limits(max_latency_ratio=0.2), 2.0),
        (Limits(min_size_ratio=16, max_latency_ratio=0.2), 4.0),
    ],
)
def test_beyond_a_limit_it_is_by_how_many_times(limits, objective):
    one = trial(250, 0.5, 0.4)
    assert Aim(goal="speed").objective(one, BYTES, limits) == pytest.approx(objective)


def test_what_gave_no_result_is_nobodys_best():
    assert Aim().objective(trial(None, None, None), BYTES, Limits()) == inf
