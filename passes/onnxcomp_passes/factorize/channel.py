"""A convolution to few channels, then a pointwise one; of a transposed one the other way round."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from onnxcomp_passes.factorize.pieces import Piece, Solved
from onnxcomp_passes.factorize.spectrum import balanced, low_rank

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from onnxcomp_passes.factorize.sites import Site

    Floats = NDArray[np.float64]
    Seconds = Sequence[Floats | None]


def pieces(site: Site, rank: int) -> tuple[Piece, ...]:
    """Return a convolution with the kernel to the rank, then one without to the outputs.

    A transposed one comes after one without a kernel from the inputs to the rank, and takes no
    more space than what it reads.
    """
    outputs, inputs, *kernel = site.weight.shape
    groups, ones = site.form.matrices[0], (1,) * len(kernel)
    if site.op == "ConvTranspose":
        outputs, inputs = inputs, outputs // groups
        return (
            Piece((groups * rank, inputs, *ones), groups),
            Piece((groups * rank, outputs, *kernel), groups),
        )
    axes = tuple(range(len(kernel)))
    return (
        Piece((groups * rank, inputs, *kernel), groups, axes),
        Piece((outputs, rank, *ones), groups),
    )


def solve(site: Site, weights: Floats, seconds: Seconds, rank: int) -> Solved:
    """Return the two convolutions that are best (Zhang et al., 2015).

    Args:
        site: Where the weight is.
        weights: W, shape (groups, outputs, inputs).
        seconds: For each group the second moment of what it multiplies, or None.
        rank: Channels of each group in between.
    """
    pairs = [
        balanced(*low_rank(each, rank, second))
        for each, second in zip(weights, seconds, strict=True)
    ]
    left, right = (np.stack(each) for each in zip(*pairs, strict=True))
    shapes = [piece.shape for piece in pieces(site, rank)]
    last = left.transpose(0, 2, 1) if site.op == "ConvTranspose" else left
    return Solved((right.reshape(shapes[0]), last.reshape(shapes[1])), left @ right)
