"""The smaller layers that one layer becomes: what they take, and what they compute."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING

from onnxcomp.graph.operators import RECURRENCES

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

    from onnxcomp_passes.factorize.sites import Site

    Floats = NDArray[np.float64]

ADDED_BYTES = 160
"""What an added operator takes besides its weight and the names in it, about."""

NAMES = 8
"""How often the names of the weight or of the output occur in the added operators, about."""


@dataclass(frozen=True)
class Piece:
    """One of the layers.

    Args:
        shape: Shape of its weight; of a convolution as the operator takes it.
        groups: Groups of a convolution.
        axes: Spatial axes along which a convolution has a kernel and takes the strides; none of
            a transposed one, which multiplies once for each place that it reads.
    """

    shape: tuple[int, ...]
    groups: int = 1
    axes: tuple[int, ...] = ()

    @property
    def size(self) -> int:
        """Elements of its weight."""
        return prod(self.shape)


@dataclass(frozen=True)
class Extent:
    """How much an operator computes in one run.

    Args:
        rows: Columns that a product of matrices multiplies, or samples of a convolution.
        before: Sizes of the spatial axes that a convolution reads.
        after: Sizes of those that it gives.
    """

    rows: int
    before: tuple[int, ...] = ()
    after: tuple[int, ...] = ()


@dataclass(frozen=True, eq=False)
class Solved:
    """What a weight becomes.

    Args:
        arrays: The weights of the layers: of convolutions as the operators take them, else
            factors of shape (groups, outputs, rank) and (groups, rank, inputs), the latter first.
        dense: Their product, shape (groups, outputs, inputs).
    """

    arrays: tuple[Floats, ...]
    dense: Floats


def count_bytes(pieces: Sequence[Piece], site: Site) -> int:
    """Return what layers take in the file in the place of one, in bytes."""
    weight = site.weight
    names = NAMES * (len(weight.name) + max(len(each.outputs[0].name) for each in site.nodes))
    added = (len(pieces) - 1) * (ADDED_BYTES + names) * len(site.nodes)
    return sum(piece.size for piece in pieces) * weight.dtype.itemsize + added


def count_macs(pieces: Sequence[Piece], extent: Extent, op: str) -> int:
    """Return how many multiplications layers take in one run.

    Args:
        pieces: The layers, in the order in which they compute.
        extent: Of the operator that they replace.
        op: Its type; looking up rows multiplies nothing.
    """
    if op == "Gather":
        return sum(piece.size for piece in pieces[1:]) * extent.rows
    sizes, total = list(extent.before), 0
    for piece in pieces:
        for axis in piece.axes:
            sizes[axis] = extent.after[axis]
        total += piece.size * extent.rows * prod(sizes)
    return total


def whole(site: Site) -> tuple[Piece, ...]:
    """Return the layer as it is."""
    shape = site.weight.shape
    if site.is_convolution:
        axes = tuple(range(len(site.kernel))) if site.op == "Conv" else ()
        return (Piece(shape, site.form.matrices[0], axes),)
    if site.op in RECURRENCES:
        return (Piece(site.form.matrices),)
    return (Piece(shape),)
