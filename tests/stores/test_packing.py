"""Codes as bytes and back."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnxcomp.stores.packing import (
    digit_table,
    digits_per_byte,
    join_planes,
    pack,
    plane_bases,
    split_planes,
    unpack,
)


@given(st.integers(2, 256), st.integers(0, 40), st.randoms(use_true_random=False))
def test_pack_and_unpack(base, count, numbers):
    codes = np.array([numbers.randrange(base) for _ in range(count)], np.uint8)
    packed = pack(codes, base)
    assert len(packed) == -(-count // digits_per_byte(base))
    np.testing.assert_array_equal(unpack(packed, base, count), codes)


@given(st.integers(2, 256), st.integers(1, 40), st.randoms(use_true_random=False))
def test_planes(clusters, count, numbers):
    codes = np.array([numbers.randrange(clusters) for _ in range(count)], np.uint8)
    bases = plane_bases(clusters)
    assert np.prod(bases) >= clusters
    assert np.prod(bases) < 2 * clusters
    planes = split_planes(codes, bases)
    np.testing.assert_array_equal(join_planes(planes, bases, count), codes)


@pytest.mark.parametrize(
    ("base", "digits"), [(2, 8), (3, 5), (4, 4), (5, 3), (6, 3), (7, 2), (16, 2), (17, 1)]
)
def test_digits(base, digits):
    assert digits_per_byte(base) == digits
    table = digit_table(base)
    assert table.shape == (256, digits)
    assert table.max() < base
