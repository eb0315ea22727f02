"""A convolution along one axis of the kernel, then one along the others.

Jaderberg et al., "Speeding up convolutional neural networks with low rank expansions" (2014).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from onnxcomp_passes.factorize.last import fit_last, multiply, seen_through
from onnxcomp_passes.factorize.pieces import Piece, Solved
from onnxcomp_passes.factorize.spectrum import balanced, low_rank

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from onnxcomp_passes.factorize.sites import Site

    Floats = NDArray[np.float64]
    Seconds = Sequence[Floats | None]


def pieces(site: Site, rank: int) -> tuple[Piece, ...]:
    """Return a convolution along the first axis to the rank, then one along the others."""
    outputs, inputs, first, *rest = site.weight.shape
    groups, ones = site.form.matrices[0], (1,) * len(rest)
    axes = tuple(range(1, 1 + len(rest)))
    return (
        Piece((groups * rank, inputs, first, *ones), groups, (0,)),
        Piece((outputs, rank, 1, *rest), groups, axes),
    )


def most(site: Site) -> int:
    """Return the rank from which on nothing is lost."""
    outputs, inputs, first, *rest = site.weight.shape
    return min(inputs * first, outputs // site.form.matrices[0] * int(np.prod(rest)))


def solve(site: Site, weights: Floats, seconds: Seconds, rank: int) -> Solved:
    """Return the two convolutions.

    The first is the best one if what lies at the taps of the other axes were independent, the
    second is fitted to it by least squares.

    Args:
        site: Where the weight is.
        weights: W, shape (groups, outputs, inputs).
        seconds: For each group the second moment of what it multiplies, or None.
        rank: Channels of each group in between.
    """
    _, inputs, taps, *rest = site.weight.shape
    split = (inputs, taps, int(np.prod(rest)))
    found = [
        _solve(each, second, rank, split) for each, second in zip(weights, seconds, strict=True)
    ]
    first, last, dense = (np.stack(each) for each in zip(*found, strict=True))
    shapes = [piece.shape for piece in pieces(site, rank)]
    return Solved((first.reshape(shapes[0]), last.reshape(shapes[1])), dense)


def _solve(
    weights: Floats, second: Floats | None, rank: int, split: tuple[int, int, int]
) -> tuple[Floats, Floats, Floats]:
    inputs, taps, rest = split
    outputs = len(weights)
    lines = weights.reshape(outputs, inputs * taps, rest).transpose(0, 2, 1)
    moment = None
    if second is not None:
        # The mean over the taps of the other axes.
        moment = np.einsum("aubu->ab", second.reshape(inputs * taps, rest, inputs * taps, rest))
        moment = moment / rest
    _, first = low_rank(lines.reshape(outputs * rest, inputs * taps), rank, moment)
    last = fit_last(weights, seen_through(first, second, rest))
    dense = multiply(last, first, rest)
    last, first = balanced(last.reshape(outputs, rank, rest), first)
    return first, last, dense
