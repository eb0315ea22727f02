"""The last of several layers, fitted to those before it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.linalg import cho_factor, cho_solve

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

RIDGE = 1e-10
"""Share of the mean of the diagonal that is added to it: layers before may repeat themselves."""


def seen_through(before: Floats, second: Floats | None) -> tuple[Floats, Floats]:
    """Return what layers make of the columns that come.

    Args:
        before: Z, the product of the layers, shape (features, inputs).
        second: H, the second moment of the columns, shape (inputs, inputs); None for the identity.

    Returns:
        Z H Z', shape (features, features), and H Z', shape (inputs, features).
    """
    across = before.T if second is None else second @ before.T
    moment = before @ across
    moment[np.diag_indices_from(moment)] += RIDGE * float(np.trace(moment)) / len(moment) + 1e-300
    return moment, across


def fit_last(weights: Floats, before: Floats, second: Floats | None) -> Floats:
    """Return V for V Z closest to W in its outputs, shape (outputs, features): least squares.

    Args:
        weights: W, shape (outputs, inputs).
        before: Z, shape (features, inputs).
        second: As for `seen_through`.
    """
    moment, across = seen_through(before, second)
    fitted: Floats = cho_solve(cho_factor(moment), (weights @ across).T).T
    return fitted
