"""Grids of weights: a scale for each output channel, and rounding to it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from passes.quantize.grids import SMALLEST_SCALE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from onnxcomp.recovery import Feedback
    from onnxcomp.statistics import Form

    Floats = NDArray[np.float64]

SHARES = np.linspace(1.0, 0.4, 31)
"""Parts of the largest magnitude that a scale may reach to."""


@dataclass(frozen=True, eq=False)
class WeightGrid:
    """What values a weight can take: ``scale * code``, a scale for each channel.

    Args:
        scale: float32, shape (channels,), or () for one scale.
        axis: The axis of the channels.
        most: The largest code; the least is its opposite.
    """

    scale: NDArray[np.float32]
    axis: int
    most: int

    def spread(self, shape: tuple[int, ...]) -> NDArray[np.float32]:
        """Return the scale of each element of a weight."""
        if not self.scale.ndim:
            return np.broadcast_to(self.scale, shape)
        lined = self.scale.reshape([-1 if at == self.axis else 1 for at in range(len(shape))])
        return np.broadcast_to(lined, shape)

    def codes(self, values: NDArray[Any]) -> NDArray[np.int32]:
        """Return the nearest codes."""
        scaled = np.rint(values / self.spread(values.shape))
        return np.clip(scaled, -self.most, self.most).astype(np.int32)

    def values(self, codes: NDArray[np.int32]) -> NDArray[np.float32]:
        """Return what codes stand for."""
        return codes.astype(np.float32) * self.spread(codes.shape)

    def fed_back(
        self, weights: Floats, form: Form, feedbacks: Sequence[Feedback]
    ) -> NDArray[np.int32] | None:
        """Return codes with error feedback; None where a scale varies along the inputs.

        Args:
            weights: Shape (groups, outputs, inputs).
            form: How the weight becomes such matrices.
            feedbacks: One a group.
        """
        steps = form.to_matrices(self.spread(form.tensor))
        if np.any(steps != steps[:, :, :1]):
            return None
        rounded = np.empty(weights.shape, np.float32)
        for group, (one, feedback) in enumerate(zip(weights, feedbacks, strict=True)):
            step = steps[group, :, 0]

            def nearest(
                columns: NDArray[np.float32],
                _: NDArray[np.float32],
                step: NDArray[np.float32] = step,
            ) -> NDArray[np.float32]:
                return np.clip(np.rint(columns / step), -self.most, self.most) * step

            rounded[group] = feedback.round(one, nearest)
        return self.codes(form.to_tensor(rounded))


def weight_grid(
    values: NDArray[Any], axis: int, most: int, *, power_of_two: bool = False
) -> WeightGrid:
    """Return the grid of a weight whose scales have the least squared error.

    At 8 bits and more they reach to the largest magnitude of each channel, which the search
    would leave where it is.

    Args:
        values: The weight.
        axis: The axis of the output channels.
        most: The largest code.
        power_of_two: Whether scales are powers of two.
    """
    rows = np.moveaxis(values, axis, 0).reshape(values.shape[axis], -1).astype(np.float64)
    reach = np.abs(rows).max(axis=1)
    reach = np.where(reach > 0, reach, SMALLEST_SCALE * most)
    scale = reach / most
    if power_of_two:
        scale = 2.0 ** np.ceil(np.log2(scale))
    elif most < FINE:
        scale = _searched(rows, reach, most)
    return WeightGrid(scale.astype(np.float32), axis, most)


FINE = 100
"""From so many codes on, scales are not searched."""


def _searched(rows: Floats, reach: Floats, most: int) -> Floats:
    best, least = reach / most, np.full(len(rows), np.inf)
    for share in SHARES:
        scale = reach * share / most
        codes = np.clip(np.rint(rows / scale[:, None]), -most, most)
        error = np.square(rows - codes * scale[:, None]).sum(axis=1)
        best, least = np.where(error < least, scale, best), np.minimum(error, least)
    return best
