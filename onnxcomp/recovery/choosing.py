"""Which of several repairs of a layer is kept: the one that helps on columns it has not seen."""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from onnxcomp.recovery.measuring import held_out_error

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    from onnxcomp.recovery.problems import Problem
    from onnxcomp.statistics import HeldOut

    Floats = NDArray[np.float64]

Made = TypeVar("Made")


def best_repair(
    problem: Problem,
    candidates: Iterable[tuple[Made, NDArray[np.floating]]],
    held_out: HeldOut | None,
) -> tuple[Made, Floats]:
    """Return the best of some repairs, and what is to be added to the outputs beside it.

    Each is tried with the mean of the outputs corrected and without. Which is best is measured on
    held-out columns; where there are none, the mean is corrected, and it is what has the least
    error on the columns that it was made from. Of equal ones the first is kept.

    Args:
        problem: The layer.
        candidates: What was made, and the weights that it gives, shape (groups, outputs, inputs).
        held_out: Columns that no candidate was made from.

    Raises:
        ValueError: There is no candidate.
    """
    best, least = None, inf
    for made, found in candidates:
        shift = problem.shift(found)
        for each in (shift, np.zeros_like(shift)) if shift.any() else (shift,):
            if held_out is None:
                error = problem.error(found) if each is shift else inf
            else:
                error = held_out_error(problem.weights, found, each, held_out)
            if best is None or error < least:
                best, least = (made, each), error
    if best is None:
        raise ValueError("there is no repair to choose from")
    return best
