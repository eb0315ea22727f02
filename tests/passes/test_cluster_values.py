"""Weights of all kinds under `Cluster`: zeros, few values, NaNs, dead channels, any size."""

import numpy as np
import pytest
from single_weight import RANDOM, SPARSE, WEIGHT, clustered, relative


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"granularity": "tensor"},
        {"granularity": "group", "group_size": 8},
        {"bits": 2},
        {"bits": 8, "entries": "int8"},
        {"entries": "float16"},
        {"share": "model"},
        {"clusters": 3},
    ],
    ids=str,
)
def test_zeros_stay_zeros(options):
    verdict, decoded, _ = clustered(SPARSE, **options)
    assert verdict.verdict == "changed"
    assert not decoded[SPARSE == 0].any()
    assert relative(SPARSE, decoded) < 0.6


def test_vectors_of_zeros_stay_zeros():
    pruned = np.repeat(SPARSE[:, ::2], 2, axis=1)
    decoded = clustered(pruned, bits=4, width=2, entries="float16")[1]
    assert not decoded[pruned == 0].any()


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"granularity": "tensor"},
        {"granularity": "group", "group_size": 8},
        {"entries": "int8"},
        {"entries": "float16", "granularity": "tensor"},
        {"share": "model"},
        {"width": 2},
        {"bits": 2, "width": 4},
    ],
    ids=str,
)
def test_few_distinct_values_are_stored_exactly(options):
    levels = np.array([-0.3, 0.1, np.pi, 1e-20], np.float32)
    values = levels[RANDOM.integers(4, size=(48, 40))]
    verdict, decoded, _ = clustered(values, **options)
    assert verdict.reason == "4 distinct values, stored exactly"
    assert verdict.error == 0
    assert np.array_equal(decoded, values)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize(
    "options", [{}, {"granularity": "tensor"}, {"width": 2}, {"share": "model"}], ids=str
)
def test_weights_that_are_not_finite_are_left_alone(value, options):
    broken = WEIGHT.copy()
    broken[3, 4] = value
    verdict, decoded, _ = clustered(broken, **options)
    assert verdict.verdict == "skipped"
    assert verdict.reason == "holds NaN or infinity"
    assert np.array_equal(decoded, broken, equal_nan=True)


@pytest.mark.parametrize("options", [{}, {"granularity": "group"}, {"width": 2}], ids=str)
def test_dead_channels(options):
    dying = WEIGHT.copy()
    dying[:, 5] = np.float32(1e-38) * WEIGHT[:, 5]
    dying[:, 6] = 0
    verdict, decoded, _ = clustered(dying, **options)
    assert np.isfinite(decoded).all()
    assert verdict.error < 0.2
    assert np.abs(decoded[:, 5:7]).max() < 0.1


@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_weights_of_any_size(scale):
    values = WEIGHT * np.float32(scale)
    for options in ({}, {"granularity": "tensor"}, {"width": 2}, {"share": "model"}):
        verdict, decoded, _ = clustered(values, **options)
        assert np.isfinite(decoded).all()
        assert verdict.error < 0.25


@pytest.mark.parametrize("scale", [1e-9, 1e6, 1e12])
@pytest.mark.parametrize(
    "options",
    [{"granularity": "tensor"}, {"granularity": "group"}, {"granularity": "tensor", "width": 2}],
    ids=str,
)
def test_float16_entries_only_where_they_hold_the_weights(scale, options):
    values = WEIGHT * np.float32(scale)
    exact, rounded = (
        clustered(values, entries=entries, **options)[0] for entries in ("float32", "float16")
    )
    assert rounded.error == pytest.approx(exact.error, rel=1e-3)
