"""The kinds of small layers that a layer can become."""

from __future__ import annotations

from dataclasses import dataclass
from math import gcd
from typing import TYPE_CHECKING

from onnxcomp_passes.factorize import channel, factors, polyadic, separable, spatial, tucker
from onnxcomp_passes.factorize.pieces import count_bytes

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from onnxcomp_passes.factorize.pieces import Piece, Solved
    from onnxcomp_passes.factorize.sites import Site

    Floats = NDArray[np.float64]
    Solve = Callable[[Site, Floats, Sequence[Floats | None], int], Solved]

PAIR = "pair"
"""The name of the one kind of what is no convolution."""


@dataclass(frozen=True)
class Kind:
    """One kind.

    Args:
        pieces: Returns the layers that there are at a rank.
        solve: Returns their weights.
        most: Returns the rank from which on nothing is lost.
    """

    pieces: Callable[[Site, int], tuple[Piece, ...]]
    solve: Solve
    most: Callable[[Site], int]


KINDS = {
    PAIR: Kind(factors.pieces, factors.solve, lambda site: site.full_rank),
    "channel": Kind(channel.pieces, channel.solve, lambda site: site.full_rank),
    "spatial": Kind(spatial.pieces, spatial.solve, spatial.most),
    "tucker": Kind(tucker.pieces, tucker.solve, tucker.most),
    "cp": Kind(polyadic.pieces, polyadic.solve, polyadic.most),
    "separable": Kind(separable.pieces, separable.solve, separable.most),
}


@dataclass(frozen=True)
class Choice:
    """What one layer becomes.

    Args:
        kind: One of `KINDS`.
        rank: The rank; what it counts depends on the kind.
    """

    kind: str
    rank: int

    def __str__(self) -> str:
        return f"{self.kind}:{self.rank}"

    def pieces(self, site: Site) -> tuple[Piece, ...]:
        """Return the layers."""
        return KINDS[self.kind].pieces(site, self.rank)

    def nbytes(self, site: Site) -> int:
        """Return what they take in the file, in bytes."""
        return count_bytes(self.pieces(site), site)

    def solve(self, site: Site, weights: Floats, seconds: Sequence[Floats | None]) -> Solved:
        """Return their weights, shape (groups, outputs, inputs), as `Kind.solve` does."""
        return KINDS[self.kind].solve(site, weights, seconds, self.rank)


def kinds_of(site: Site, allowed: Sequence[str]) -> list[str]:
    """Return the kinds that a layer can become."""
    if not site.is_convolution:
        return [PAIR]
    if site.op == "ConvTranspose":
        return [kind for kind in allowed if kind == "channel"]
    along = sum(size > 1 for size in site.kernel)
    fits = {
        "channel": True,
        "spatial": along > 1 and site.kernel[0] > 1,
        "tucker": along > 0,
        "cp": along > 0,
        "separable": along > 0,
    }
    return [kind for kind in allowed if fits.get(kind, False)]


def ranks_of(site: Site, kind: str, multiple: int) -> range:
    """Return the ranks that a kind can have: multiples of what computes fast, from small to full.

    Args:
        site: The layer.
        kind: The kind.
        multiple: What the channels in between of a convolution are a multiple of.
    """
    step = 1
    if kind not in {PAIR, "separable"}:
        step = multiple // gcd(multiple, site.form.matrices[0])
    return range(step, KINDS[kind].most(site) + 1, step)


def rank_within(site: Site, kind: str, ranks: range, size: float) -> int | None:
    """Return the largest of some ranks whose layers have at most so many weights; None if none."""
    low, high = 0, len(ranks)
    while low < high:
        middle = (low + high) // 2
        if sum(piece.size for piece in KINDS[kind].pieces(site, ranks[middle])) <= size:
            low = middle + 1
        else:
            high = middle
    return ranks[low - 1] if low else None
