"""How near to the floor a candidate is."""

import numpy as np
import pytest

from onnxcomp import Settings, compare
from onnxcomp.runtime.comparison import OutputComparison
from onnxcomp.search.floors import loss_of
from onnxcomp.validation import Validation


def validation_of(snr_db, agreement=None):
    found = OutputComparison(
        name="y",
        dtype="float32",
        cosine=1.0,
        snr_db=snr_db,
        squared_error=0.0,
        max_abs=1.0,
        compared=80,
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


@pytest.fixture(scope="module")
def report(models):
    original = models["dynamic_batch"].proto
    return compare(original, original, settings=Settings(validation=False, bench=False))
