"""Grids: zero is on them, their ends keep, and nothing is further from them than half a step."""

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from quantizing import matrix, numbers, weight

from onnxcomp.recovery import Feedback
from onnxcomp.statistics import Form
from onnxcomp_passes.quantize.forms import FLOAT8, WEIGHT_TYPES
from onnxcomp_passes.quantize.grids import ActivationGrid
from onnxcomp_passes.quantize.weight_grids import block_grid, channel_grid

DTYPES = [np.dtype(kind) for kind in (np.uint8, np.int8, np.uint16, np.int16)]
VALUES = st.floats(-1e6, 1e6, width=32)


def finer(rows, most, parts):
    """Return the least squared error of each row over scales that reach to parts of its most."""
    reach = np.abs(rows).max(axis=1, keepdims=True)
    errors = []
    for part in parts:
        scale = reach * part / most
        errors.append(np.square(np.clip(np.rint(rows / scale), -most, most) * scale - rows))
    return np.min([each.sum(axis=1) for each in errors], axis=0)


@settings(max_examples=300, deadline=None)
@given(VALUES, VALUES, st.sampled_from(DTYPES), st.booleans(), st.lists(VALUES, min_size=1))
def test_activations(low, high, dtype, power_of_two, values):
    grid = ActivationGrid.between(low, high, dtype, power_of_two=power_of_two)
    scale, (least, most) = float(grid.scale), grid.ends
    assert grid.scale.shape == grid.zero_point.shape == ()
    assert (grid.scale.dtype, grid.zero_point.dtype) == (np.float32, dtype)
    assert grid.rounded(np.zeros(1)) == 0
    inside = np.clip(np.array(values, np.float64), least, most)
    rounded = grid.rounded(inside)
    assert np.abs(rounded - inside).max() <= scale / 2 * (1 + 1e-9)
    codes = rounded / scale + int(grid.zero_point)
    assert np.abs(codes - np.rint(codes)).max() < 1e-6
    info = np.iinfo(dtype)
    assert codes.min() >= (-info.max if info.min < 0 else 0) - 1e-6
    assert codes.max() <= info.max + 1e-6
    if power_of_two:
        assert np.log2(scale) == np.rint(np.log2(scale))
    if info.min < 0:
        assert grid.zero_point == 0
        assert least == -most


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_ends_are_about_those_asked_for(dtype):
    for low, high in ((-1, 3), (0, 6), (-5, 0), (-0.1, 1e6), (2, 7), (-7, -2), (1e-25, 2e-25)):
        grid = ActivationGrid.between(low, high, dtype)
        is_signed = np.iinfo(dtype).min < 0
        furthest = max(-low, high)
        wanted = (-furthest, furthest) if is_signed else (min(low, 0), max(high, 0))
        np.testing.assert_allclose(grid.ends, wanted, atol=float(grid.scale) * 0.51)
        powers = ActivationGrid.between(low, high, dtype, power_of_two=True)
        assert grid.scale <= powers.scale < 2.001 * grid.scale


@settings(max_examples=300, deadline=None)
@given(st.floats(1e-20, 1e18), st.sampled_from(DTYPES))
def test_the_last_code_does_not_pass_the_end_of_a_clip(high, dtype):
    grid = ActivationGrid.between(0, high, dtype)
    most = np.float32(np.iinfo(dtype).max) * grid.scale
    assert grid.ends[1] <= high
    assert most <= np.float32(high)
    assert most > high * (1 - 1e-6)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_what_is_always_zero(dtype):
    grid = ActivationGrid.between(0, 0, dtype)
    assert grid.scale > 0
    assert grid.zero_point == 0
    assert not grid.rounded(np.zeros(3)).any()


@settings(max_examples=200, deadline=None)
@given(
    st.sampled_from(list(FLOAT8)),
    st.floats(1e-20, 1e18),
    st.booleans(),
    st.lists(st.floats(-1.2, 1.2), min_size=1),
)
def test_floats_of_8_bits(kind, reach, power_of_two, shares):
    dtype = FLOAT8[kind]
    info = ml_dtypes.finfo(dtype)
    grid = ActivationGrid.between(-reach / 3, reach, dtype, power_of_two=power_of_two)
    scale, (least, most) = float(grid.scale), grid.ends
    assert (grid.scale.dtype, grid.zero_point.dtype, float(grid.zero_point)) == ("f4", dtype, 0)
    assert least == -most == -float(info.max) * scale
    assert reach * (1 - 1e-6) <= most <= reach * (2 if power_of_two else 1)
    values = np.array(shares) * reach
    rounded = grid.rounded(values)
    # Half of the last place: 2^-4 of a normal number of E4M3, 2^-3 of E5M2.
    bound = np.maximum(np.abs(values) * 2.0 ** -(info.nmant + 1), 0)
    subnormal = float(info.smallest_subnormal) * scale / 2
    is_inside = np.abs(values) <= most
    missed = np.abs(rounded - values)
    assert (missed <= np.maximum(bound, subnormal) * (1 + 1e-6))[is_inside].all()
    assert (np.abs(rounded) == most)[~is_inside].all()
    # What it stands for is what QuantizeLinear makes of it.
    assert np.array_equal(rounded, (rounded / scale).astype(dtype).astype(np.float64) * scale)


@pytest.mark.parametrize("kind", FLOAT8)
def test_what_a_float_of_8_bits_is_stays(kind):
    dtype = FLOAT8[kind]
    known = np.arange(256, dtype=np.uint8).view(dtype).astype(np.float64)
    known = known[np.isfinite(known)]
    grid = ActivationGrid.between(known.min(), known.max(), dtype)
    assert grid.scale == 1
    assert np.array_equal(grid.rounded(known), known)
    values = (known[known != 0, None] * np.array([1, 0.25])).astype(np.float32)
    weights = channel_grid(values, 1, int(known.max()), floats=dtype)
    assert np.array_equal(weights.scale, np.array([1, 0.25], np.float32))
    codes = weights.codes(values)
    assert codes.dtype == np.float32
    assert np.array_equal(weights.values(codes), values)


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("most", [127, 32767, 64])
def test_channels_are_rounded_to_half_a_step(axis, most):
    values = numbers(5, 6, 7) * np.geomspace(1e-6, 1e6, 5, dtype=np.float32)[:, None, None]
    grid = channel_grid(values, axis, most)
    assert grid.scale.shape == values.shape[axis : axis + 1]
    codes = grid.codes(values)
    assert np.abs(codes).max() == most
    steps = grid.spread(values.shape)
    assert (np.abs(grid.values(codes) - values) <= steps * 0.50001 + 1e-6 * np.abs(values)).all()


@pytest.mark.parametrize("most", [7, 1])
def test_few_codes_have_the_scale_of_the_least_error(most):
    values = numbers(40, 60)
    grid = channel_grid(values, 0, most)
    codes = grid.codes(values)
    assert set(np.unique(codes)) <= set(range(-most, most + 1))
    error = np.square(grid.values(codes) - values).sum(axis=1)
    assert (error <= 1.05 * finer(values, most, np.linspace(0.05, 1, 1000))).all()
    assert error.sum() < 0.9 * finer(values, most, [1.0]).sum()


def test_signs_have_the_scale_of_the_least_error():
    values = numbers(40, 60)
    grid = channel_grid(values, 0, 1, has_zero=False)
    codes = grid.codes(values)
    assert np.array_equal(codes, np.where(values < 0, -1, 1))
    error = np.square(grid.values(codes) - values).sum(axis=1)
    for factor in (0.98, 1.02):
        other = np.square(factor * grid.values(codes) - values).sum(axis=1)
        assert (error < other).all()


@pytest.mark.parametrize(("most", "has_zero"), [(127, True), (7, True), (1, True), (1, False)])
def test_a_row_of_zeros(most, has_zero):
    values = numbers(4, 30)
    values[2] = 0
    grid = channel_grid(values, 0, most, has_zero=has_zero)
    decoded = grid.values(grid.codes(values))
    assert (grid.scale > 0).all()
    assert np.abs(decoded[2]).max() < 1e-29
    assert (np.abs(decoded[[0, 1, 3]]).max(axis=1) > 0.1).all()


@pytest.mark.parametrize(("most", "has_zero"), [(127, True), (7, True), (1, True), (1, False)])
def test_powers_of_two(most, has_zero):
    values = matrix(30, 20)
    grids = [channel_grid(values, 1, most, has_zero=has_zero, power_of_two=True)]
    grids += [block_grid(values, 16, most, power_of_two=True)] if has_zero else []
    for grid in grids:
        exponents = np.log2(grid.scale)
        assert np.array_equal(exponents, np.rint(exponents))
        if has_zero:
            # Nothing is cut off.
            assert np.abs(values / grid.spread(values.shape)).max() <= most


@pytest.mark.parametrize("inputs", [64, 40, 10])
def test_blocks(inputs):
    values = matrix(inputs, 12) * np.geomspace(0.01, 1, inputs, dtype=np.float32)[:, None]
    grid = block_grid(values, 16, 127)
    assert grid.scale.shape == (-(-inputs // 16), 12)
    steps = grid.spread(values.shape)
    assert steps.shape == values.shape
    for start in range(0, inputs, 16):
        assert (steps[start : start + 16] == grid.scale[start // 16]).all()
    assert (np.abs(grid.values(grid.codes(values)) - values) <= steps * 0.50001).all()


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 1000), st.floats(-3, 3), st.booleans())
def test_blocks_with_a_zero_point(seed, shift, power_of_two):
    values = matrix(40, 12, seed=seed) + np.float32(shift)
    grid = block_grid(values, 16, 15, has_zero_point=True, power_of_two=power_of_two)
    assert grid.scale.shape == grid.below.shape == (3, 12)
    assert np.array_equal(grid.below, np.rint(grid.below))
    codes = grid.codes(values)
    stored = grid.stored(codes)
    assert stored.min() >= 0
    assert stored.max() <= 15
    centred = (stored - np.repeat(grid.below, 16, 0)[:40]).astype(np.float32)
    assert np.array_equal(grid.values(codes), centred * grid.spread(values.shape))
    assert not grid.values(grid.codes(np.zeros_like(values))).any()
    # No more is lost than by the range from end to end, of which nothing is cut off.
    padded = np.pad(values, ((0, 8), (0, 0))).reshape(3, 16, 12)
    full = (padded.max(axis=1).clip(min=0) - padded.min(axis=1).clip(max=0)) / 15
    error = np.square(grid.values(codes) - values)
    if not power_of_two:
        assert error.sum() <= np.square(full).sum() * 16 / 4


def test_blocks_with_a_zero_point_are_closer_where_they_are_lopsided():
    values = np.abs(matrix(64, 12))
    errors = [
        np.square(grid.values(grid.codes(values)) - values).sum()
        for grid in (block_grid(values, 16, 15, has_zero_point=True), block_grid(values, 16, 7))
    ]
    assert errors[0] < 0.4 * errors[1]


def test_blocks_are_closer_than_channels():
    values = matrix(64, 12) * np.geomspace(0.01, 1, 64, dtype=np.float32)[:, None]
    errors = [
        np.square(grid.values(grid.codes(values)) - values).sum()
        for grid in (block_grid(values, 16, 7), channel_grid(values, 1, 7))
    ]
    assert errors[0] < 0.7 * errors[1]


def test_codes_fit_their_type():
    values = matrix(64, 12)
    codes = block_grid(values, 16, 7).codes(values)
    assert np.array_equal(codes.astype(ml_dtypes.int4).astype(np.int32), codes)


def test_error_feedback_from_independent_inputs_is_the_nearest_codes():
    values = weight(12, 20)
    form = Form((12, 20), (12, 20), (0, 1), (1, 12, 20))
    grid = channel_grid(values, 0, 7)
    found = grid.fed_back(values[None].astype(np.float64), form, [Feedback(np.eye(20))])
    assert np.array_equal(found, grid.codes(values))


@pytest.mark.parametrize("kind", FLOAT8)
def test_error_feedback_on_floats_of_8_bits(kind):
    values = weight(12, 20).astype(np.float64)
    mixing = numbers(20, 20) * np.geomspace(0.1, 1, 20)[:, None]
    second = mixing.T @ mixing + 0.01 * np.eye(20)
    form = Form((12, 20), (12, 20), (0, 1), (1, 12, 20))
    grid = channel_grid(values, 0, WEIGHT_TYPES[kind].most, floats=FLOAT8[kind])
    plain = grid.fed_back(values[None], form, [Feedback(np.eye(20))])
    assert np.array_equal(plain, grid.codes(values))
    costs = []
    for codes in (grid.fed_back(values[None], form, [Feedback(second)]), plain):
        assert np.array_equal(codes.astype(FLOAT8[kind]).astype(np.float32), codes)
        missed = grid.values(codes) - values
        costs.append(np.einsum("oi,ij,oj->", missed, second, missed))
    assert costs[0] < 0.8 * costs[1]


@pytest.mark.parametrize("has_zero", [True, False])
def test_error_feedback_lowers_what_correlated_inputs_make_of_the_error(has_zero):
    values = weight(12, 20).astype(np.float64)
    mixing = numbers(20, 20) * np.geomspace(0.1, 1, 20)[:, None]
    second = mixing.T @ mixing + 0.01 * np.eye(20)
    form = Form((12, 20), (12, 20), (0, 1), (1, 12, 20))
    grid = channel_grid(values, 0, 1, has_zero=has_zero)
    found = grid.fed_back(values[None], form, [Feedback(second)])
    costs = []
    for codes in (found, grid.codes(values)):
        assert set(np.unique(codes)) <= ({-1, 0, 1} if has_zero else {-1, 1})
        missed = grid.values(codes) - values
        costs.append(np.einsum("oi,ij,oj->", missed, second, missed))
    assert costs[0] < 0.8 * costs[1]


def test_error_feedback_needs_one_scale_for_the_inputs_of_an_output():
    values = matrix(32, 12)
    form = Form((32, 12), (32, 12), (1, 0), (1, 12, 32))
    grid = block_grid(values, 16, 7)
    assert grid.fed_back(values.T[None], form, [Feedback(np.eye(32))]) is None
