"""What a change costs: in a weight, and in outputs on columns that no repair was made from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from onnxcomp.recovery.problems import extended

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from onnxcomp.statistics import HeldOut

    Floats = NDArray[np.float64]


BLOCK = 1 << 22
"""Elements that are compared at a time, so that no copy of a whole weight is made."""


def relative_error(values: NDArray[Any], found: NDArray[Any]) -> float:
    """Return the Frobenius norm of what became of a weight less the weight, relative to its own.

    Args:
        values: The weight.
        found: What became of it, of the same shape.
    """
    wrong, total = 0.0, 0.0
    first, second = values.reshape(-1), found.reshape(-1)
    for start in range(0, len(first), BLOCK):
        exact = first[start : start + BLOCK].astype(np.float64)
        wrong += float(np.sum(np.square(exact - second[start : start + BLOCK])))
        total += float(np.sum(np.square(exact)))
    return float(np.sqrt(wrong / total)) if total else 0.0


def held_out_error(
    weights: NDArray[np.floating], found: NDArray[np.floating], shift: Floats, columns: HeldOut
) -> float:
    """Return the squared error of a repaired layer's outputs, relative to their variance.

    Args:
        weights: The original's, shape (groups, outputs, inputs).
        found: Those of the repaired layer, likewise.
        shift: What the repaired layer adds, shape (groups, outputs).
        columns: What both multiply: the repaired layer its own, the original the original's.
    """
    own, original = columns.columns, columns.original
    wrong, total = 0.0, 0.0
    for group, (first, second) in enumerate(zip(weights, found, strict=True)):
        place = group if len(own) > 1 else 0
        wanted = original[place].astype(np.float64) @ extended(first, original.shape[2]).T
        given = own[place].astype(np.float64) @ second.T + shift[group]
        wrong += float(np.sum(np.square(wanted - given)))
        total += float(np.sum(np.square(wanted - wanted.mean(axis=0))))
    return wrong / total if total > 0 else wrong
