"""Two factors: of a product of matrices, an embedding or a recurrent layer's input weight."""

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
    """Return two layers: from the inputs to the rank, and on to the outputs."""
    groups, outputs, inputs = site.form.matrices
    first, second = Piece((groups, rank, inputs)), Piece((groups, outputs, rank))
    return (second, first) if site.op == "Gather" else (first, second)


def solve(site: Site, weights: Floats, seconds: Seconds, rank: int) -> Solved:
    """Return the two factors that are best.

    Args:
        site: Where the weight is.
        weights: W, shape (groups, outputs, inputs).
        seconds: For each group the second moment of what it multiplies, or None.
        rank: The rank.
    """
    del site
    pairs = [
        balanced(*low_rank(each, rank, second))
        for each, second in zip(weights, seconds, strict=True)
    ]
    left, right = (np.stack(each) for each in zip(*pairs, strict=True))
    return Solved((right, left), left @ right)
