"""How far each weight is pruned."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from onnxcomp.graph import Weight

MOST = 0.98
"""The largest share of a weight that becomes zero where weights differ in it."""


def by_threshold(weight: Weight, threshold: float) -> float:
    """Return the share of a weight that is smaller than a threshold."""
    values = np.abs(weight.load().astype(np.float32, copy=False))
    return float(np.mean(values < threshold))


def by_magnitude(weights: Sequence[Weight], sparsity: float) -> list[float]:
    """Return shares such that all weights together lose the smallest, each relative to its tensor.

    Args:
        weights: The weights.
        sparsity: The share that all of them lose.
    """
    sizes = [_relative(weight) for weight in weights]
    total = sum(len(each) for each in sizes)
    if not total:
        return []
    limit = np.partition(np.concatenate(sizes), place := min(total - 1, round(sparsity * total)))
    return [min(MOST, float(np.mean(each < limit[place]))) for each in sizes]


def _relative(weight: Weight) -> np.ndarray:
    """Return magnitudes relative to the root mean square."""
    values = np.abs(weight.load().astype(np.float32).reshape(-1))
    strength = float(np.sqrt(np.mean(np.square(values, dtype=np.float64))))
    return values / np.float32(strength or 1.0)
