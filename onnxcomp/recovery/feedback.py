"""Error feedback: what rounding one weight costs is made up for by those that are not rounded yet.

Optimal Brain Quantization in the order of the columns, as GPTQ does it (Frantar et al., "GPTQ:
Accurate post-training quantization for generative pre-trained transformers", 2022); several
columns at a time for vector codebooks (van Baalen et al., "GPTVQ", 2024).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.linalg import lapack

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Singles = NDArray[np.float32]
    Round = Callable[[Singles, Singles], Singles]
    """Takes unrounded columns, shape (width, outputs), and their metric, shape (width, width): an
    output's error e costs |metric e|^2. Returns the columns rounded."""

BLOCK = 128
"""Columns whose errors reach the later ones in one product."""

DAMPING = 0.01
"""Share of the mean of the diagonal that is added to it."""

FEW = 4
"""With fewer columns than this for each of their elements, a second moment is mostly chance."""

TENFOLD = 10.0
TRIALS = 8


def damp(second: Floats, count: int, damping: float = DAMPING) -> Floats:
    """Make a second moment safe to invert.

    Where columns were few, what lies off the diagonal is mostly chance, and it is shrunk by
    ``width / (count + width)``. Inputs that are always zero get the mean of the diagonal.

    Args:
        second: Mean of x x', shape (width, width).
        count: Columns that it is the mean of.
        damping: Share of the mean of the diagonal that is added to it.
    """
    width = len(second)
    # Rounding may leave a centred moment of what hardly varies below zero.
    diagonal = np.maximum(np.diag(second), 0.0)
    level = float(diagonal.mean()) or 1.0
    damped = second * (count / (count + width) if count < FEW * width else 1.0)
    np.fill_diagonal(damped, np.where(diagonal > 0, diagonal, level) + damping * level)
    return damped


class Feedback:
    """Rounds weights column by column, each time moving the later ones against the error.

    Columns go in the order of their strength, the strongest first.

    Args:
        damped: A damped second moment of what the weights multiply, shape (inputs, inputs).
        width: Neighbouring columns that keep together in this order, so that they can be rounded
            together.

    Raises:
        np.linalg.LinAlgError: The second moment stays singular however much it is damped.
    """

    def __init__(self, damped: Floats, width: int = 1) -> None:
        strength = np.diag(damped).reshape(-1, width).sum(axis=1)
        first = np.argsort(-strength, kind="stable")[:, None] * width
        self._width = width
        self._order = (first + np.arange(width)).reshape(-1)
        self._factor = _inverse_factor(damped[np.ix_(self._order, self._order)])

    @property
    def order(self) -> NDArray[np.intp]:
        """The columns in the order in which they are rounded."""
        return self._order

    def round(
        self,
        weights: Floats,
        rounded: Round,
        support: NDArray[np.bool_] | None = None,
        width: int | None = None,
    ) -> Singles:
        """Return weights rounded, shape (outputs, inputs).

        Args:
            weights: The weights, likewise.
            rounded: Rounds a few columns.
            support: Which weights may differ from zero, likewise; None for all. What is left of
                the others is error that those to come make up for.
            width: Neighbouring columns that are rounded together, a divisor of those that keep
                together; None for all of these.
        """
        width, factor = width or self._width, self._factor
        left = np.ascontiguousarray(weights.T[self._order], np.float32)
        result = np.empty_like(left)
        stays = None if support is None else support.T[self._order]
        for start in range(0, len(left), BLOCK):
            block = left[start : start + BLOCK]
            stop = start + len(block)
            upper = factor[start:stop, start:stop]
            errors = np.empty_like(block)
            for place in range(0, len(block), width):
                part, later = slice(place, place + width), slice(place + width, None)
                own = upper[part, part]
                metric = np.linalg.inv(own).T if width > 1 else np.reciprocal(own)
                done = rounded(block[part], metric)
                if stays is not None:
                    done = np.where(stays[start:stop][part], done, np.float32(0))
                result[start:stop][part] = done
                errors[part] = metric @ (block[part] - done)
                block[later] -= upper[part, later].T @ errors[part]
            left[stop:] -= factor[start:stop, stop:].T @ errors
        back = np.empty_like(result)
        back[self._order] = result
        return np.ascontiguousarray(back.T)


def _inverse_factor(damped: Floats) -> Singles:
    """Return the upper triangular U with U' U = inverse of a damped second moment."""
    extra = 0.0
    for _ in range(TRIALS):
        flipped = np.array(damped[::-1, ::-1], order="F")
        flipped[np.diag_indices_from(flipped)] += extra
        lower, failed = lapack.dpotrf(flipped, lower=1, clean=1, overwrite_a=1)
        if not failed:
            inverse, _ = lapack.dtrtri(lower, lower=1, overwrite_c=1)
            return np.ascontiguousarray(inverse[::-1, ::-1], np.float32)
        extra = max(extra * TENFOLD, DAMPING * float(np.diag(damped).mean()))
    raise np.linalg.LinAlgError("the second moment stays singular")
