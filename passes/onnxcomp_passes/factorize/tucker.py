"""A pointwise convolution to few channels, the kernel, and a pointwise one to the outputs.

Tucker-2 (Kim et al., "Compression of deep convolutional neural networks for fast and low power
mobile applications", 2016), fitted layer by layer.
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

STEP = 16
"""Channels that enter the kernel are a multiple of this, where there are as many."""


def ranks(site: Site, rank: int) -> tuple[int, int]:
    """Return the channels of a group that enter the kernel, and those that leave it.

    They are the same share of the channels that came and that go, and no more than can be used.
    """
    _, outputs, columns = site.form.matrices
    inputs = columns // site.taps
    entering = max(1, round(rank * inputs / outputs))
    if entering > STEP:
        entering = round(entering / STEP) * STEP
    entering = min(entering, inputs, outputs * site.taps)
    return entering, min(rank, outputs, entering * site.taps)


def pieces(site: Site, rank: int) -> tuple[Piece, ...]:
    """Return the three convolutions."""
    outputs, inputs, *kernel = site.weight.shape
    groups, ones = site.form.matrices[0], (1,) * len(kernel)
    entering, leaving = ranks(site, rank)
    return (
        Piece((groups * entering, inputs, *ones), groups),
        Piece((groups * leaving, entering, *kernel), groups, tuple(range(len(kernel)))),
        Piece((outputs, leaving, *ones), groups),
    )


def most(site: Site) -> int:
    """Return the rank from which on nothing is lost."""
    return site.form.matrices[1]


def solve(site: Site, weights: Floats, seconds: Seconds, rank: int) -> Solved:
    """Return the three convolutions.

    The first is the best one if what lies at the taps were independent; the others are the best
    of their rank after it.

    Args:
        site: Where the weight is.
        weights: W, shape (groups, outputs, inputs).
        seconds: For each group the second moment of what it multiplies, or None.
        rank: Channels of each group that leave the kernel.
    """
    both, taps = ranks(site, rank), site.taps
    found = [
        _solve(each, second, both, taps) for each, second in zip(weights, seconds, strict=True)
    ]
    first, core, last, dense = (np.stack(each) for each in zip(*found, strict=True))
    shapes = [piece.shape for piece in pieces(site, rank)]
    arrays = (first, core, last)
    return Solved(tuple(each.reshape(to) for each, to in zip(arrays, shapes, strict=True)), dense)


def _solve(
    weights: Floats, second: Floats | None, both: tuple[int, int], taps: int
) -> tuple[Floats, Floats, Floats, Floats]:
    outputs, columns = weights.shape
    inputs = columns // taps
    across = weights.reshape(outputs, inputs, taps).transpose(0, 2, 1).reshape(-1, inputs)
    moment = None
    if second is not None:
        moment = np.einsum("atbt->ab", second.reshape(inputs, taps, inputs, taps)) / taps
    _, first = low_rank(across, both[0], moment)
    seen = seen_through(first, second, taps)
    last, core = low_rank(fit_last(weights, seen), both[1], seen[0])
    dense = last @ multiply(core, first, taps)
    last, core = balanced(last, core)
    core, first = balanced(core.reshape(both[1], both[0], taps), first)
    return first, core, last, dense
