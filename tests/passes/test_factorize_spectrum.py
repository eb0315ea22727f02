"""Low rank is the best there is, and its error is known before."""

import numpy as np
import pytest

from onnxcomp_passes.factorize.spectrum import MOST_EXACT, Spectrum, balanced, low_rank, tail

SHAPES = [(12, 30), (30, 12), (20, 20), (1, 7), (7, 1)]


def columns_of(width, count=4000, seed=0):
    """Return correlated columns, shape (width, count)."""
    random = np.random.default_rng([seed, width])
    mixing = random.standard_normal((width, width)) * np.geomspace(1, 0.01, width)
    return mixing @ random.standard_normal((width, count))


def weights_of(shape, seed=1):
    return np.random.default_rng([seed, *shape]).standard_normal(shape)


@pytest.mark.parametrize("shape", SHAPES)
def test_error_is_the_tail_of_the_energies(shape):
    weights, columns = weights_of(shape), columns_of(shape[1])
    second = columns @ columns.T / columns.shape[1]
    wanted = weights @ columns
    spectrum = Spectrum(weights, second)
    for rank in range(1, min(shape) + 1):
        left, right = spectrum.factors(rank)
        missed = np.sum(np.square(wanted - left @ (right @ columns))) / np.sum(np.square(wanted))
        assert missed == pytest.approx(tail(spectrum.energies, rank), rel=1e-3, abs=1e-9)


@pytest.mark.parametrize("shape", SHAPES)
def test_nothing_of_the_same_rank_is_better(shape):
    weights, columns = weights_of(shape), columns_of(shape[1])
    second = columns @ columns.T / columns.shape[1]
    rank = max(1, min(shape) // 3)
    left, right = Spectrum(weights, second).factors(rank)
    # The best approximation of the outputs themselves (Eckart and Young).
    values = np.linalg.svd(weights @ columns, compute_uv=False)
    missed = np.sum(np.square(weights @ columns - left @ (right @ columns)))
    assert missed == pytest.approx(np.sum(np.square(values[rank:])), rel=1e-6, abs=1e-9)


def test_without_data_it_is_the_singular_value_decomposition():
    weights = weights_of((14, 9))
    values = np.linalg.svd(weights, compute_uv=False)
    assert Spectrum(weights).energies == pytest.approx(np.square(values))
    left, right = low_rank(weights, 4)
    assert np.linalg.norm(weights - left @ right) == pytest.approx(np.linalg.norm(values[4:]))


@pytest.mark.parametrize("is_wide", [True, False])
@pytest.mark.parametrize("has_data", [True, False])
def test_random_projection_is_nearly_as_good(is_wide, has_data):
    shape = (40, 90) if is_wide else (90, 40)
    weights = weights_of(shape) @ np.diag(np.geomspace(1, 1e-3, shape[1]))
    second = np.cov(columns_of(shape[1])) + 1e-3 * np.eye(shape[1]) if has_data else None
    from onnxcomp_passes.factorize.spectrum import _projected  # noqa: PLC0415

    left, right = _projected(weights, 8, second)
    assert (left.shape, right.shape) == ((shape[0], 8), (8, shape[1]))
    missed = weights - left @ right
    error = np.vdot(missed if second is None else missed @ second, missed)
    total = np.vdot(weights if second is None else weights @ second, weights)
    assert error / total <= 1.01 * tail(Spectrum(weights, second).energies, 8) + 1e-9
    assert max(shape) < MOST_EXACT


def test_zeros_are_no_error():
    spectrum = Spectrum(np.zeros((5, 4)))
    assert tail(spectrum.energies, 1) == 0
    left, right = balanced(*spectrum.factors(1))
    assert not np.any(left @ right)


def test_factors_are_balanced():
    left, right = balanced(*Spectrum(weights_of((30, 20))).factors(6))
    assert np.abs(left).max(axis=0) == pytest.approx(np.abs(right).max(axis=1))
