"""A pointwise convolution, a depthwise one along each axis of the kernel, and a pointwise one.

Canonical polyadic decomposition by alternating least squares (Lebedev et al., "Speeding-up
convolutional neural networks using fine-tuned CP-decomposition", 2015).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.linalg import khatri_rao

from onnxcomp_passes.factorize.last import fit_last, seen_through
from onnxcomp_passes.factorize.pieces import Piece, Solved
from onnxcomp_passes.factorize.spectrum import balanced

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from onnxcomp_passes.factorize.sites import Site

    Floats = NDArray[np.float64]
    Seconds = Sequence[Floats | None]

ROUNDS = 60
RIDGE = 1e-6
"""Share of the mean of the diagonal that is added to it: components that cancel stay small."""

SEED = 0


def pieces(site: Site, rank: int) -> tuple[Piece, ...]:
    """Return a pointwise convolution, one along each axis, and a pointwise one."""
    outputs, inputs, *kernel = site.weight.shape
    groups, ones = site.form.matrices[0], (1,) * len(kernel)
    channels = groups * rank
    along = [
        Piece((channels, 1, *ones[:axis], size, *ones[axis + 1 :]), channels, (axis,))
        for axis, size in enumerate(kernel)
    ]
    return (
        Piece((channels, inputs, *ones), groups),
        *along,
        Piece((outputs, rank, *ones), groups),
    )


def most(site: Site) -> int:
    """Return the rank from which on nothing need be lost."""
    _, outputs, columns = site.form.matrices
    sizes = [outputs, columns // site.taps, *site.kernel]
    return int(np.prod(sizes)) // max(sizes)


def solve(site: Site, weights: Floats, seconds: Seconds, rank: int) -> Solved:
    """Return the convolutions: of least error in the weights, the last one fitted to the outputs.

    Args:
        site: Where the weight is.
        weights: W, shape (groups, outputs, inputs).
        seconds: For each group the second moment of what it multiplies, or None.
        rank: Channels of each group in between.
    """
    kernel = site.kernel
    found = [
        _solve(each, second, rank, kernel) for each, second in zip(weights, seconds, strict=True)
    ]
    *arrays, dense = (np.stack(each) for each in zip(*found, strict=True))
    shapes = [piece.shape for piece in pieces(site, rank)]
    return Solved(tuple(each.reshape(to) for each, to in zip(arrays, shapes, strict=True)), dense)


def _solve(
    weights: Floats, second: Floats | None, rank: int, kernel: tuple[int, ...]
) -> tuple[Floats, ...]:
    outputs, columns = weights.shape
    tensor = weights.reshape(outputs, -1, *kernel)
    del columns
    factors = _alternate(tensor, rank)
    before = factors[1].T
    for factor in factors[2:]:
        before = np.einsum("ra,rb->rab", before, factor.T).reshape(rank, -1)
    last = fit_last(weights, seen_through(before, second))
    dense = last @ before
    last, first = balanced(last, factors[1].T)
    return first, *(factor.T for factor in factors[2:]), last, dense


def _alternate(tensor: Floats, rank: int) -> list[Floats]:
    """Return a factor for each axis, shape (size, rank); all but the first two have norm 1."""
    random = np.random.default_rng(SEED)
    unfolded = [
        np.moveaxis(tensor, axis, 0).reshape(size, -1) for axis, size in enumerate(tensor.shape)
    ]
    factors = [_start(each, rank, random) for each in unfolded]
    for _ in range(ROUNDS):
        for axis, matrix in enumerate(unfolded):
            others = [factor for place, factor in enumerate(factors) if place != axis]
            product, gram = others[0], others[0].T @ others[0]
            for other in others[1:]:
                product, gram = khatri_rao(product, other), gram * (other.T @ other)
            gram[np.diag_indices_from(gram)] += RIDGE * np.trace(gram) / rank + 1e-300
            found = np.linalg.solve(gram, (matrix @ product).T).T
            norms = np.linalg.norm(found, axis=0)
            # The last factor that is fitted carries the magnitude.
            keeps = axis == len(unfolded) - 1
            scale = np.ones_like(norms) if keeps else np.where(norms > 0, norms, 1.0)
            factors[axis] = np.asarray(found / scale, np.float64)
    norms = np.linalg.norm(factors[-1], axis=0)
    factors[-1] = factors[-1] / np.where(norms > 0, norms, 1.0)
    factors[1] = factors[1] * norms
    return factors


def _start(matrix: Floats, rank: int, random: np.random.Generator) -> Floats:
    """Return the first singular vectors, filled up with noise where there are too few."""
    vectors = np.linalg.svd(matrix @ matrix.T)[0][:, :rank]
    noise = random.standard_normal((len(matrix), rank - vectors.shape[1]))
    return np.hstack([vectors, noise])
