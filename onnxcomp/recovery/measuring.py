"""Whether a repair helps, on columns that it was not made from."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from onnxcomp.recovery.problems import extended

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from onnxcomp.statistics import HeldOut

    Floats = NDArray[np.float64]


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
