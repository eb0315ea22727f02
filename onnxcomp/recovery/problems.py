"""A layer as a least-squares problem: weights for the columns that it now gets."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.linalg import LinAlgError
from scipy.linalg import cho_factor, cho_solve

from onnxcomp.recovery.feedback import damp
from onnxcomp.recovery.refits import gain_and_shift, refit_on_support

if TYPE_CHECKING:
    from typing import Self

    from numpy.typing import NDArray

    from onnxcomp.statistics import Moments

    Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Problem:
    """Find weights V and a shift b so that V x + b is close to W x0.

    Here x0 is what the original multiplies its weights W with, and x what came of it after the
    layers before were changed. For any V the best shift is known, and what remains is a problem
    in the centred moments. Where x0 has more elements, the others are what the outputs should
    make up for besides, one each.

    Args:
        weights: W, shape (groups, outputs, inputs).
        second: Centred mean of x x', shape (groups, inputs, inputs).
        cross: Centred mean of x0 x', shape (groups, inputs or inputs + outputs, inputs).
        mean: Mean of x, shape (groups, inputs).
        original_mean: Mean of x0, shape (groups, inputs or inputs + outputs).
        count: Columns that these are means of.
        shifts: Whether there can be a shift; if not, moments are not centred.
        is_paired: Whether x0 is known; if not, x stands for it.
    """

    weights: Floats
    second: Floats
    cross: Floats
    mean: Floats
    original_mean: Floats
    count: int
    shifts: bool = True
    is_paired: bool = False

    @classmethod
    def of(cls, weights: NDArray[np.floating], moments: Moments, *, shifts: bool) -> Self:
        """Return the problem of weights, shape (groups, outputs, inputs), on observed columns.

        Groups that share their columns, as the directions of a recurrent layer do, get copies.
        """
        second, cross = moments.second, moments.cross
        mean, original_mean = moments.mean, moments.original_mean
        if shifts:
            second = second - mean[:, :, None] * mean[:, None, :]
            cross = cross - original_mean[:, :, None] * mean[:, None, :]

        def spread(array: Floats) -> Floats:
            return np.broadcast_to(array, (len(weights), *array.shape[1:]))

        return cls(
            weights.astype(np.float64),
            spread(second),
            spread(cross),
            spread(mean),
            spread(original_mean),
            moments.count,
            shifts,
            moments.paired,
        )

    @cached_property
    def damped(self) -> list[Floats]:
        """The second moments, safe to invert."""
        return [damp(second, self.count) for second in self.second]

    def target(self, support: NDArray[np.bool_] | None = None) -> Floats:
        """Return the weights that are best for x, shape (groups, outputs, inputs).

        They are W (C + D - H) / D for the cross moment C, the second moment H and its damped form
        D: least squares with a ridge that holds on to W where the columns say little.

        Args:
            support: Which weights may differ from zero, likewise; None for all.
        """
        result = np.empty_like(self.weights)
        for group, (weights, damped) in enumerate(zip(self.weights, self.damped, strict=True)):
            right = extended(weights, self.cross.shape[1]) @ self.cross[group]
            right += weights @ (damped - self.second[group])
            try:
                result[group] = cho_solve(cho_factor(damped), right.T).T
            except LinAlgError:
                # Rounding is all that is left of columns that hardly vary beside their mean.
                result[group] = weights
            if support is not None:
                result[group] = refit_on_support(result[group], support[group], damped)
        return result

    def shift(self, found: NDArray[np.floating]) -> Floats:
        """Return the best shift beside weights, shape (groups, outputs); zeros if none can be.

        It makes the mean of the outputs that of the original (bias correction: Nagel et al.,
        "Data-free quantization through weight equalization and bias correction", 2019).
        """
        if not self.shifts:
            return np.zeros(self.weights.shape[:2])
        original = np.stack([extended(each, self.cross.shape[1]) for each in self.weights])
        wanted: Floats = np.einsum("goi,gi->go", original, self.original_mean)
        shift: Floats = wanted - np.einsum("goi,gi->go", found, self.mean)
        return shift

    def corrected(self, found: Floats) -> tuple[Floats, Floats]:
        """Return weights whose outputs vary as those of W do, and the best shift beside them.

        What least squares cannot tell it leaves out, so that outputs vary less from layer to
        layer (statistics correction: see `gain_and_shift`). Where there can be no shift, weights
        stay as they are.

        Args:
            found: Weights, shape (groups, outputs, inputs).
        """
        if not self.shifts:
            return found, np.zeros(self.weights.shape[:2])
        means = np.einsum("goi,gi->go", found, self.mean)
        wanted = means + self.shift(found)
        deviations = [
            np.sqrt(np.maximum(np.einsum("goi,goi->go", each @ self.second, each), 0.0))
            for each in (self.weights, found)
        ]
        gain, shift = gain_and_shift((wanted, deviations[0]), (means, deviations[1]))
        return found * gain[..., None], shift

    def error(self, found: NDArray[np.floating]) -> float:
        """Return the squared error of the outputs relative to the original's variance.

        It holds for the columns x: what the layers before have cost is no part of it.
        """
        wrong, total = 0.0, 0.0
        for weights, other, second in zip(self.weights, found, self.second, strict=True):
            missed = weights - other
            wrong += float(np.vdot(missed @ second, missed))
            total += float(np.vdot(weights @ second, weights))
        return max(wrong, 0.0) / total if total > 0 else 0.0


def extended(weights: NDArray[np.floating], width: int) -> NDArray[np.floating]:
    """Return weights, shape (outputs, inputs), that pass on what columns hold beyond inputs.

    Args:
        weights: Shape (outputs, inputs).
        width: Elements of the columns: as many as inputs, or inputs and outputs together.
    """
    if width == weights.shape[1]:
        return weights
    return np.hstack([weights, np.eye(len(weights), dtype=weights.dtype)])
