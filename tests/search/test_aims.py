"""What makes one result better than another."""

from math import inf

import pytest

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
        expected_drop=0.0,
        snr_db=30.0,
        latency_ratio=latency,
        latency_low=low,
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
        ("balanced", 250, 0.25, 0.2, 0.25),
    ],
)
def test_the_objective(goal, count, latency, low, objective):
    assert Aim(goal=goal).objective(trial(count, latency, low), BYTES) == objective


def test_what_gave_no_result_is_nobodys_best():
    assert Aim().objective(trial(None, None, None), BYTES) == inf
