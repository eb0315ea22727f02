"""How far each weight is pruned, by its values alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

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
    together = np.concatenate(sizes) if sizes else np.zeros(1, np.float32)
    place = min(len(together) - 1, round(sparsity * len(together)))
    limit = np.partition(together, place)[place]
    return [min(MOST, float(np.mean(each < limit))) for each in sizes]


def _relative(weight: Weight) -> NDArray[np.float32]:
    """Return magnitudes relative to the root mean square, shape (elements,)."""
    values = np.abs(weight.load().astype(np.float32).reshape(-1))
    strength = float(np.sqrt(np.mean(np.square(values, dtype=np.float64))))
    return (values / (strength or 1.0)).astype(np.float32)
