"""Metrics of outputs, summed feed by feed."""

import json
from math import inf

import numpy as np
import pytest

from onnxcomp.runtime.comparison import OutputSums

RANDOM = np.random.default_rng(0)


def compare(*pairs):
    sums = OutputSums("y")
    for original, other in pairs:
        sums.add(np.asarray(original), np.asarray(other))
    return sums.comparison()


def test_equal_outputs():
    x = RANDOM.standard_normal((3, 5))
    result = compare((x, x))
    assert (result.cosine, result.snr_db, result.max_abs) == (pytest.approx(1), inf, 0)
    assert result.squared_error == 0
    assert (result.agreement, result.finite, result.note) == (1, True, None)
    assert json.loads(result.model_dump_json())["snr_db"] is None
    assert result.model_dump(mode="json")["max_abs"] == 0


def test_a_known_perturbation_over_several_feeds():
    x = RANDOM.standard_normal((64, 50), np.float32)
    noise = RANDOM.standard_normal(x.shape, np.float32)
    noise *= np.float32(0.01) * np.linalg.norm(x) / np.linalg.norm(noise)
    result = compare(*((a, a + n) for a, n in zip(x, noise, strict=True)))
    assert result.snr_db == pytest.approx(40, abs=1e-3)
    assert result.squared_error == pytest.approx(1e-4, rel=1e-3)
    assert result.cosine == pytest.approx(1 - 0.01**2 / 2, abs=1e-5)
    assert result.max_abs == pytest.approx(np.abs(noise).max(), rel=1e-4)


def test_argmax_agreement_counts_rows():
    original = np.eye(4, dtype=np.float16)
    other = original[[0, 1, 2, 0]]
    assert compare((original, other), (original, original)).agreement == 7 / 8
    assert compare(([[1.0], [2.0]], [[1.0], [3.0]])).agreement is None


def test_other_types_agree_element_by_element():
    assert compare(([1, 2, 3, 4], [1, 2, 3, 5])).agreement == 0.75
    assert compare(([True, False], [True, True])).agreement == 0.5
    text = compare((np.array(["a", "b"], object), np.array(["a", "c"], object)))
    assert (text.dtype, text.agreement, text.cosine, text.snr_db) == ("string", 0.5, None, None)
    assert text.squared_error is None


def test_what_is_no_longer_finite():
    result = compare(([[1.0, 2.0]], [[1.0, np.nan]]))
    assert (result.finite, result.cosine, result.snr_db, result.max_abs) == (False, 0, -inf, inf)
    assert result.note == "1 elements are no longer finite"
    assert result.squared_error == inf
    dumped = result.model_dump(mode="json")
    assert (dumped["max_abs"], dumped["squared_error"]) == (None, None)


def test_what_never_was_finite_is_left_out():
    result = compare(([[1.0, -inf]], [[1.0, -inf]]), ([[np.nan, 2.0]], [[3.0, 2.0]]))
    assert (result.finite, result.snr_db) == (True, inf)
    assert result.note == "2 elements that are not finite in the original left out"


def test_shapes_that_differ_disagree():
    boxes = np.ones((3, 4), np.float32)
    result = compare((boxes, boxes), (boxes, boxes[:2]))
    assert (result.agreement, result.snr_db, result.misshapen) == (0.5, inf, 1)
    assert not result.is_identical
    assert result.note == "differs in shape in 1 of 2 feeds (float32[3, 4] against float32[2, 4])"
    nothing = compare((boxes, boxes[:2]))
    assert (nothing.agreement, nothing.cosine, nothing.snr_db) == (0, 0, -inf)


@pytest.mark.parametrize(
    ("dims", "shape", "breach"),
    [
        (("M", 4), (2, 4), None),
        (("M", 4), (3, 5), "differs in shape in 1 of 2 feeds"),
        (("M", 4), (12,), "differs in shape in 1 of 2 feeds"),
        (("M", 9), (3, 5), None),
        ((), (2, 9), None),
        ((), (12,), "differs in shape in 1 of 2 feeds"),
        (None, (12,), None),
    ],
)
def test_shapes_that_break_what_is_declared(dims, shape, breach):
    sums = OutputSums("y", dims)
    boxes = np.ones((3, 4), np.float32)
    sums.add(boxes, boxes)
    sums.add(boxes, np.ones(shape, np.float32))
    assert sums.comparison().breach == breach
    assert sums.comparison().note is not None


def test_text_against_numbers():
    text, nothing = np.array(["a", "b"], object), np.zeros(0, np.float32)
    assert compare((text, np.ones(2))).breach == "differs in type in 1 of 1 feeds"
    members = OutputSums("y", None)
    members.add(text, nothing)
    assert members.comparison().breach is None
    members.add(text, np.ones(2))
    assert members.comparison().breach == "differs in type in 1 of 2 feeds"


def test_outputs_of_zeros():
    zeros, ones = np.zeros((2, 2)), np.ones((2, 2))
    assert compare((zeros, zeros)).cosine == 1
    assert (compare((zeros, ones)).cosine, compare((zeros, ones)).snr_db) == (0, -inf)


@pytest.mark.parametrize("nothing", [np.zeros((0, 4)), np.full((3, 4), np.nan)], ids=str)
def test_where_nothing_is_compared_there_are_no_measures(nothing):
    result = compare((nothing, nothing), (nothing, nothing + 1))
    measures = (result.cosine, result.snr_db, result.squared_error, result.max_abs)
    assert (*measures, result.agreement) == (None,) * 5
    assert (result.compared, result.is_identical) == (0, False)
    assert result.note.startswith("has nothing that could be compared")


@pytest.mark.parametrize("row", [[np.nan, 1.0], [inf, 1.0], [-inf, -inf]])
def test_rows_without_a_largest_number_do_not_agree(row):
    result = compare(([[1.0, 2.0], row], [[1.0, 2.0], row]))
    assert result.agreement == 0.5
    assert compare(([[1.0, 2.0]], [[-inf, 2.0]])).agreement == 1


def test_elements_that_are_finite_in_the_original_are_counted():
    assert compare(([[1.0, np.nan]], [[1.0, 1.0]]), ([[1.0, 2.0]], [[np.nan, 2.0]])).compared == 3
    assert compare((np.array(["a", "b"], object), np.array(["a", "c"], object))).compared == 2
    assert compare((np.zeros((0, 4)), np.zeros((1, 4)))).compared == 1


def test_the_pieces_of_a_large_output_add_up():
    x = RANDOM.standard_normal((3000, 1000), np.float32)
    y = x.copy()
    y[2999] = -y[2999]
    result = compare((x, y))
    assert result.agreement == 2999 / 3000
    expected = 10 * np.log10(np.sum(x.astype(float) ** 2) / np.sum((2.0 * x[2999]) ** 2))
    assert result.snr_db == pytest.approx(expected, rel=1e-6)


def test_text_that_is_empty():
    words, none = np.array(["a", "b"], object), np.zeros(0, object)
    assert compare((none, none)).agreement is None
    assert compare((none, none), (words, words)).agreement == 1
