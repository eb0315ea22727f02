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


def seen_through(first: Floats, second: Floats | None, places: int = 1) -> tuple[Floats, Floats]:
    """Return what layers make of the columns that come.

    Args:
        first: The product of the layers, shape (features, inputs). They stand at each of some
            places alike: with Z, shape (features x places, inputs x places), every place gives
            features of its own inputs.
        second: H, the second moment of the columns, shape (inputs x places, inputs x places);
            None for the identity.
        places: How many places.

    Returns:
        Z H Z', shape (features x places, features x places), and H Z', shape (inputs x places,
        features x places).
    """
    features, inputs = first.shape
    if second is None:
        across = np.asarray(np.kron(first, np.eye(places)).T, np.float64)
    else:
        across = multiply(second, first.T, places)
    parts: Floats = np.tensordot(first, across.reshape(inputs, places, -1), axes=(1, 0))
    moment = parts.reshape(features * places, -1)
    moment[np.diag_indices_from(moment)] += RIDGE * float(np.trace(moment)) / len(moment) + 1e-300
    return moment, across


def fit_last(weights: Floats, seen: tuple[Floats, Floats]) -> Floats:
    """Return V for V Z closest to W in its outputs: least squares.

    Args:
        weights: W, shape (outputs, inputs x places).
        seen: What `seen_through` gave of the layers before.

    Returns:
        Shape (outputs, features x places).
    """
    moment, across = seen
    fitted: Floats = cho_solve(cho_factor(moment), (weights @ across).T).T
    return fitted


def multiply(left: Floats, right: Floats, places: int) -> Floats:
    """Multiply with a matrix that stands at each place, without writing all of it down.

    Args:
        left: Shape (rows, features x places).
        right: Shape (features, inputs).
        places: How many places.

    Returns:
        Shape (rows, inputs x places).
    """
    parts = left.reshape(len(left), len(right), places)
    return np.tensordot(parts, right, axes=(1, 0)).swapaxes(1, 2).reshape(len(left), -1)
