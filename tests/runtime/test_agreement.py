"""Agreement, sample by sample."""

import numpy as np
import pytest

from onnxcomp.runtime.agreement import Agreement


def test_nothing_agrees_in_nothing():
    counts = Agreement()
    assert counts.share() is None
    counts.add(np.zeros((0, 3), bool), 0)
    assert counts.share() is None


def test_rows_of_a_sample_stand_and_fall_together():
    agree = np.arange(1000) % 10 < 9
    apart, together = Agreement(), Agreement()
    apart.add(agree, 1000)
    together.add(np.sort(agree), 20)
    shares = [each.share() for each in (apart, together)]
    assert shares[0][0] == shares[1][0] == pytest.approx(0.9)
    widths = [high - low for _, low, high in shares]
    assert widths[1] > 3 * widths[0]
    assert all(0 <= low <= share <= high <= 1 for share, low, high in shares)


def test_feeds_of_other_shapes_count_as_missed():
    counts = Agreement()
    counts.add(np.ones(6, bool), 2)
    counts.miss(6)
    assert counts.share()[0] == 0.5


def test_few_that_agree_say_little_of_others():
    few, many = Agreement(), Agreement()
    few.add(np.ones(80, bool), 8)
    many.add(np.ones(8000, bool), 800)
    assert [each.share()[0] for each in (few, many)] == [1.0, 1.0]
    assert few.share()[1] < 0.7
    assert 0.99 < many.share()[1] < 1
