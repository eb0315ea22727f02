"""A depthwise convolution with several filters for each channel, then a pointwise one.

With one filter it is a depthwise-separable layer as in MobileNet; the sum of several such pairs
comes as close as wanted (Guo et al., "Network decoupling", 2018).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from onnxcomp_passes.factorize.last import fit_last, seen_through
from onnxcomp_passes.factorize.pieces import Piece, Solved
from onnxcomp_passes.factorize.spectrum import balanced, low_rank

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from onnxcomp_passes.factorize.sites import Site

    Floats = NDArray[np.float64]
    Seconds = Sequence[Floats | None]


def pieces(site: Site, rank: int) -> tuple[Piece, ...]:
    """Return the depthwise and the pointwise convolution; the rank is the filters a channel."""
    outputs, inputs, *kernel = site.weight.shape
    groups, ones = site.form.matrices[0], (1,) * len(kernel)
    channels = inputs * groups
    return (
        Piece((channels * rank, 1, *kernel), channels, tuple(range(len(kernel)))),
        Piece((outputs, inputs * rank, *ones), groups),
    )


def most(site: Site) -> int:
    """Return the rank from which on nothing is lost."""
    return min(site.taps, site.form.matrices[1])


def solve(site: Site, weights: Floats, seconds: Seconds, rank: int) -> Solved:
    """Return the two convolutions.

    The filters of a channel are the best ones for it alone; the second layer is fitted to all of
    them by least squares.

    Args:
        site: Where the weight is.
        weights: W, shape (groups, outputs, inputs).
        seconds: For each group the second moment of what it multiplies, or None.
        rank: Filters for each channel.
    """
    taps = site.taps
    found = [
        _solve(each, second, rank, taps) for each, second in zip(weights, seconds, strict=True)
    ]
    first, last, dense = (np.stack(each) for each in zip(*found, strict=True))
    shapes = [piece.shape for piece in pieces(site, rank)]
    return Solved((first.reshape(shapes[0]), last.reshape(shapes[1])), dense)


def _solve(
    weights: Floats, second: Floats | None, rank: int, taps: int
) -> tuple[Floats, Floats, Floats]:
    inputs = weights.shape[1] // taps
    filters = np.empty((inputs, rank, taps))
    before = np.zeros((inputs, rank, inputs, taps))
    for channel in range(inputs):
        own = slice(channel * taps, (channel + 1) * taps)
        moment = None if second is None else second[own, own]
        _, filters[channel] = low_rank(weights[:, own], rank, moment)
        before[channel, :, channel] = filters[channel]
    through = before.reshape(inputs * rank, inputs * taps)
    last = fit_last(weights, seen_through(through, second))
    dense = last @ through
    last, first = balanced(last, filters.reshape(inputs * rank, taps))
    return first, last, dense
