"""Masks that weights and their zeros agree upon, by turns."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.linalg import LinAlgError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from onnxcomp_passes.prune.masks import Pattern

    Floats = NDArray[np.float64]

ROUNDS = 40
WIDEST = 2048
"""The most inputs of a layer: it takes the eigenvectors of their second moment."""

FIRST_PENALTY, GROWTH, GROWS_AFTER = 0.1, 1.3, 3
"""What it costs that both differ, relative to what an input gives; and how that grows."""


def alternating_mask(  # noqa: PLR0917 - what a mask is made from
    weights: Floats,
    mask: NDArray[np.bool_],
    damped: Sequence[Floats],
    pattern: Pattern,
    sparsity: float,
    order: NDArray[np.intp],
) -> NDArray[np.bool_] | None:
    """Return which weights stay; None where it would take too long.

    Weights without zeros that give nearly the outputs, and weights with zeros that are nearly
    these, are found in turn, and are held together more and more strongly (ADMM, as in Meng et
    al., "ALPS: Improved optimization for highly sparse one-shot pruning for large language
    models", 2024).

    Args:
        weights: Shape (groups, outputs, inputs).
        mask: Where to start.
        damped: Damped second moments of the inputs, one a group.
        pattern: Which become zero together.
        sparsity: The share that becomes zero.
        order: The inputs, neighbours of the pattern next to each other.
    """
    if len(damped[0]) > WIDEST:
        return None
    strength = np.sqrt(np.stack([np.diag(each) for each in damped]))[:, None]
    scaled = np.stack(damped) / (strength * strength.transpose(0, 2, 1))
    try:
        values, vectors = np.linalg.eigh(scaled)
    except LinAlgError:
        return None
    # Only the mask is taken from this, so that single precision is enough.
    wanted = (weights * strength).astype(np.float32)
    values, vectors = values.astype(np.float32), vectors.astype(np.float32)
    seen, backwards = wanted @ scaled.astype(np.float32), vectors.transpose(0, 2, 1)
    sparse, pressure = np.where(mask, wanted, np.float32(0)), np.zeros_like(wanted)
    penalty, kept = FIRST_PENALTY, mask.copy()
    for step in range(1, ROUNDS + 1):
        right = (seen + penalty * sparse - pressure) @ vectors
        dense = (right / (values + penalty)[:, None]) @ backwards
        open_ = dense + pressure / penalty
        kept[:, :, order] = pattern.keep(np.square(open_[:, :, order]), sparsity)
        sparse = np.where(kept, open_, np.float32(0))
        pressure += penalty * (dense - sparse)
        penalty *= GROWTH if step % GROWS_AFTER == 0 else 1.0
    return kept
