"""A matrix as the product of two thin ones, best for what it multiplies.

The best matrix of rank r for outputs W x is U U' W, where U holds the r first eigenvectors of
W H W' for the second moment H of x: nothing is inverted, and the eigenvalues that are left out are
the squared error (principal components of the responses: Zhang et al., "Accelerating very deep
convolutional networks for classification and detection", 2015). Without data H is the identity,
and it is the singular value decomposition.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.linalg import cholesky, eigh, qr, solve_triangular

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

MOST_EXACT = 2048
"""Above so many rows and columns, a rank far below is found by random projection."""

FAR_BELOW = 0.3
"""Share of the full rank up to which random projection is the faster way."""

OVERSAMPLING, POWERS, SEED = 16, 2, 0


class Spectrum:
    """All low-rank forms of one matrix.

    Args:
        weights: W, shape (outputs, inputs).
        second: H, shape (inputs, inputs), positive definite; None for the identity.

    Attributes:
        energies: What each rank adds to the squared outputs, falling.
    """

    def __init__(self, weights: Floats, second: Floats | None = None) -> None:
        self._weights = weights
        outputs, inputs = weights.shape
        self._lower: Floats | None = None
        if outputs <= inputs:
            seen = weights if second is None else weights @ second
            moment = seen @ weights.T
        else:
            if second is not None:
                self._lower = cholesky(second, lower=True)
            self._colored = weights if self._lower is None else weights @ self._lower
            moment = self._colored.T @ self._colored
        values, vectors = eigh((moment + moment.T) / 2, overwrite_a=True, check_finite=False)
        self.energies: Floats = np.maximum(values[::-1], 0.0)
        self._vectors = vectors[:, ::-1]

    def factors(self, rank: int) -> tuple[Floats, Floats]:
        """Return B, shape (outputs, rank), and A, shape (rank, inputs), for B A close to W."""
        chosen = self._vectors[:, :rank]
        outputs, inputs = self._weights.shape
        if outputs <= inputs:
            return chosen, chosen.T @ self._weights
        right = chosen.T
        if self._lower is not None:
            right = solve_triangular(self._lower, chosen, lower=True, trans="T").T
        return self._colored @ chosen, right


def tail(energies: Floats, rank: int) -> float:
    """Return the squared error of outputs at a rank, relative to their square."""
    total = float(energies.sum())
    return float(energies[rank:].sum()) / total if total > 0 else 0.0


def low_rank(weights: Floats, rank: int, second: Floats | None = None) -> tuple[Floats, Floats]:
    """Return B, shape (outputs, rank), and A, shape (rank, inputs), for B A close to W.

    Args:
        weights: W, shape (outputs, inputs).
        rank: The rank.
        second: Second moment of what W multiplies, shape (inputs, inputs), positive definite;
            None for the identity.
    """
    full = min(weights.shape)
    if full <= MOST_EXACT or rank > FAR_BELOW * full:
        return Spectrum(weights, second).factors(rank)
    return _projected(weights, rank, second)


def _projected(weights: Floats, rank: int, second: Floats | None) -> tuple[Floats, Floats]:
    """Find the outputs that matter by random projection and power iteration.

    Halko, Martinsson and Tropp, "Finding structure with randomness" (2011). In float32, since
    what it leaves of the rounding is far below what the rank leaves out.
    """
    single = weights.astype(np.float32)
    moment = None if second is None else second.astype(np.float32)

    def responses(columns: NDArray[Any]) -> NDArray[Any]:
        """Return W H W' times columns, shape (outputs, columns)."""
        inner = single.T @ columns
        result: NDArray[Any] = single @ (inner if moment is None else moment @ inner)
        return result

    width = min(rank + OVERSAMPLING, *weights.shape)
    random = np.random.default_rng(SEED)
    basis = responses(random.standard_normal((len(weights), width), np.float32))
    for _ in range(POWERS):
        basis = responses(qr(basis, mode="economic", check_finite=False)[0])
    basis = qr(basis, mode="economic", check_finite=False)[0]
    inner = basis.T @ single
    turned = Spectrum(inner.astype(np.float64), second).factors(rank)
    return basis @ turned[0], turned[1]


def balanced(left: Floats, right: Floats) -> tuple[Floats, Floats]:
    """Scale the factors of each rank alike: the largest of both becomes the same magnitude.

    Later rounding to integers, with a scale for each output of the first layer, loses least so.

    Args:
        left: B, shape (outputs, rank, ...).
        right: A, shape (rank, ...).
    """
    tops = np.abs(np.moveaxis(left, 1, 0)).reshape(left.shape[1], -1).max(axis=1)
    bottoms = np.abs(right).reshape(len(right), -1).max(axis=1)
    known = (tops > 0) & (bottoms > 0)
    scale = np.where(
        known, np.sqrt(np.divide(tops, bottoms, where=known, out=np.ones_like(tops))), 1.0
    )

    def along(axis: int, like: Floats) -> Floats:
        shape = [1] * like.ndim
        shape[axis] = -1
        return scale.reshape(shape)

    return left / along(1, left), right * along(0, right)
