"""Floors, of outputs that are made up."""

import pytest

from onnxcomp import Settings, compare
from onnxcomp.api import floors_of
from onnxcomp.api.floors import OutputFloor, doubt_of, missed_floor
from onnxcomp.report.sentences import what_was_done
from onnxcomp.report.tables import output_rows
from onnxcomp.runtime.comparison import OutputComparison
from onnxcomp.validation import Metric, Validation

SHAPES = {"misshapen": 6, "note": "differs in shape in 6 of 8 feeds"}


@pytest.fixture
def report(models):
    original = models["dynamic_batch"].proto
    plain = compare(original, original, settings=Settings(validation=False, bench=False))

    def of(**found):
        values = {
            "cosine": 1.0,
            "snr_db": 30.0,
            "squared_error": 0.0,
            "max_abs": 0.0,
            "compared": 80,
        }
        output = OutputComparison.model_validate(
            {"name": "y", "dtype": "float32", "agreement": None, **values, **found}
        )
        checked = Validation(provider="cpu", samples=8, synthetic=False, outputs=(output,))
        return plain.model_copy(update={"validation": (checked,)})

    return of


def test_an_output_of_another_shape_has_no_snr(report):
    measured = report(**SHAPES)
    (floor,) = floors_of(measured, Settings(min_snr=20))
    assert (floor.verdict, floor.measured) == ("missed", None)
    assert floor.text == (
        "output 'y' differs in shape in 6 of 8 feeds, where it has no SNR; use max_drop"
    )


def test_an_output_of_another_shape_is_not_identical(report):
    measured = report(**SHAPES)
    assert "Output y differs in shape in 6 of 8 feeds." in what_was_done(measured)
    assert "identical" not in what_was_done(measured)
    (row,) = output_rows(measured.validation[0])
    assert row[2] == "y (differs in shape in 6 of 8 feeds)"
    assert "identical" in what_was_done(report())


@pytest.mark.parametrize(
    ("agreement", "interval", "verdict", "doubt"),
    [
        (1.0, (0.0, 0.0), "held", "; the 95 % interval is 0 to 0"),
        (0.98, (0.01, 0.03), "held", "; the 95 % interval is 0.01 to 0.03"),
        (
            0.98,
            (0.0, 0.06),
            "unclear",
            "; the 95 % interval is 0 to 0.06, so that so few samples cannot tell",
        ),
        (
            0.94,
            (0.02, 0.1),
            "missed",
            "; the 95 % interval is 0.02 to 0.1, so that so few samples cannot tell",
        ),
    ],
)
def test_rows_that_disagree_have_an_interval(report, agreement, interval, verdict, doubt):
    low, high = (1 - each for each in interval[::-1])
    measured = report(agreement=agreement, agreement_low=low, agreement_high=high)
    (floor,) = floors_of(measured, Settings(max_drop=0.05))
    assert floor.verdict == verdict
    assert floor.text.startswith(f"{1 - agreement:.4g} of the rows disagree with the original's")
    assert floor.text.endswith(doubt)
    assert floor.interval == pytest.approx(interval)


def test_a_metric_that_may_be_missed_elsewhere_is_unclear(report):
    metric = Metric(original=0.9, result=0.895, items=50, low=-0.01, high=0.02)
    measured = report().model_copy(update={"metric": metric})
    settings = Settings(max_drop=0.01, evaluate="metric.py:score")
    (floor,) = floors_of(measured, settings)
    assert floor.verdict == "unclear"


def test_a_report_says_where_so_few_samples_cannot_tell(report):
    settings = Settings(max_drop=0.05)
    few = report(agreement=0.98, agreement_low=0.9, agreement_high=1.0)
    told = doubt_of(few, settings)
    assert told.endswith("so that so few samples cannot tell")
    words = what_was_done(few.model_copy(update={"doubt": told}))
    assert words.endswith(f"It keeps the floor as far as can be told: {told}.")
    many = report(agreement=0.98, agreement_low=0.97, agreement_high=0.99)
    assert doubt_of(many, settings) is None


def test_comparing_says_so(models):
    original = models["dynamic_batch"].proto
    settings = Settings(max_drop=0.01, bench=False)
    assert "cannot tell" in compare(original, original, settings=settings).doubt


def test_an_output_of_which_nothing_was_compared_keeps_no_floor(report):
    nothing = {"cosine": None, "snr_db": None, "squared_error": None, "max_abs": None}
    measured = report(**nothing, compared=0)
    floors = floors_of(measured, Settings(min_snr=20, max_drop=0.5))
    assert [(each.verdict, each.measured) for each in floors] == [("missed", None)] * 2
    text = (
        "nothing could be compared of output 'y' on cpu (8 samples): it has no finite element "
        "there; give --data on which it has"
    )
    assert [each.text for each in floors] == [text, text]
    assert missed_floor(measured, Settings(min_snr=20)) == floors[0].text


def test_floors_of_single_outputs(report):
    measured = report(agreement=0.98, agreement_low=0.97, agreement_high=0.99)
    strict = OutputFloor(output="y", kind="scores", max_drop=0.01, min_snr=20)
    mild = OutputFloor(output="y", kind="probabilities", max_drop=0.05)
    state = OutputFloor(output="y", kind="state")
    other = OutputFloor(output="z", kind="numbers", min_snr=20)
    found = floors_of(measured, Settings(), outputs=(strict, mild, state, other))
    assert [each.verdict for each in found] == ["missed", "held", "held", "missed"]
    assert missed_floor(measured, Settings(), (strict,)).startswith("0.02 of the rows disagree")
    assert missed_floor(measured, Settings(), (mild, state)) is None
