"""Grids of weights: a scale for each output channel or block, and rounding to it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from onnxcomp_passes.quantize.grids import SMALLEST_SCALE, nearest_floats

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from onnxcomp.recovery import Feedback
    from onnxcomp.statistics import Form

    Floats = NDArray[np.float64]
    Codes = NDArray[Any]

SHARES = np.linspace(1.0, 0.1, 46)
"""Parts of the largest magnitude that a scale may reach to."""

FINE = 100
"""With so many codes, a scale that reaches to the largest magnitude is as good as any."""


@dataclass(frozen=True, eq=False)
class WeightGrid:
    """What values a weight can take: ``scale * code``, where the code of zero is 0.

    Args:
        scale: float32, shape (channels,) along ``axis``; or, in blocks, the weight's shape with
            ``axis`` divided by their size and rounded up.
        axis: The axis of the channels, or the one that is cut into blocks.
        most: The largest code; the least is its opposite, unless there is ``below``.
        has_zero: Whether zero is a code; if not, there are the signs only.
        block_size: Elements along ``axis`` that share a scale; 0: no blocks.
        below: How many of ``most`` codes are below zero, float32, of the scale's shape; for
            blocks whose codes are not symmetric.
        floats: The type of floats that codes are values of, which come as float32; None for
            integers, which come as int32.
    """

    scale: NDArray[np.float32]
    axis: int
    most: int
    has_zero: bool = True
    block_size: int = 0
    below: NDArray[np.float32] | None = None
    floats: np.dtype[Any] | None = None

    def spread(self, shape: tuple[int, ...]) -> NDArray[np.float32]:
        """Return the scale of each element of a weight."""
        return self._spread(self.scale, shape)

    def codes(self, values: NDArray[Any]) -> Codes:
        """Return the nearest codes."""
        scaled = values / self.spread(values.shape)
        if self.below is None:
            return self._nearest(scaled).astype(np.int32 if self.floats is None else np.float32)
        below = self._spread(self.below, values.shape)
        return np.clip(np.rint(scaled), -below, self.most - below).astype(np.int32)

    def stored(self, codes: Codes) -> Codes:
        """Return codes as they are stored: those that are not symmetric count from 0."""
        if self.below is None:
            return codes
        return codes + self._spread(self.below, codes.shape).astype(np.int32)

    def values(self, codes: Codes) -> NDArray[np.float32]:
        """Return what codes stand for."""
        return codes.astype(np.float32) * self.spread(codes.shape)

    def fed_back(
        self,
        weights: Floats,
        form: Form,
        feedbacks: Sequence[Feedback],
        support: NDArray[np.bool_] | None = None,
    ) -> Codes | None:
        """Return codes with error feedback; None where a scale varies along the inputs.

        Args:
            weights: Shape (groups, outputs, inputs).
            form: How the weight becomes such matrices.
            feedbacks: One a group.
            support: Which weights may differ from zero, shape as they; None for all. Where zero
                is no code, it is of no meaning.
        """
        steps = form.to_matrices(self.spread(form.tensor))
        if np.any(steps != steps[:, :, :1]):
            return None
        rounded = np.empty(weights.shape, np.float32)
        for group, (one, feedback) in enumerate(zip(weights, feedbacks, strict=True)):
            step = steps[group, :, 0]
            stay = support[group] if support is not None and self.has_zero else None
            rounded[group] = feedback.round(one, partial(self._rounded, step), stay)
        return self.codes(form.to_tensor(rounded))

    def _spread(self, each: NDArray[np.float32], shape: tuple[int, ...]) -> NDArray[np.float32]:
        """Repeat what is of the scale's shape for each element of a weight."""
        if self.block_size:
            repeated = np.repeat(each, self.block_size, self.axis)
            return np.moveaxis(
                np.moveaxis(repeated, self.axis, 0)[: shape[self.axis]], 0, self.axis
            )
        lined = each.reshape([-1 if at == self.axis else 1 for at in range(len(shape))])
        return np.broadcast_to(lined, shape)

    def _rounded(
        self, step: NDArray[np.float32], columns: NDArray[np.float32], _: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        nearest: NDArray[np.float32] = self._nearest(columns / step) * step
        return nearest

    def _nearest(self, scaled: NDArray[Any]) -> NDArray[Any]:
        if not self.has_zero:
            signs: NDArray[Any] = np.where(scaled < 0, -1, 1).astype(scaled.dtype)
            return signs
        if self.floats is not None:
            return nearest_floats(scaled, self.floats)
        nearest: NDArray[Any] = np.clip(np.rint(scaled), -self.most, self.most)
        return nearest


def channel_grid(
    values: NDArray[Any],
    axis: int,
    most: int,
    *,
    has_zero: bool = True,
    power_of_two: bool = False,
    floats: np.dtype[Any] | None = None,
) -> WeightGrid:
    """Return the grid of a weight with a scale for each channel.

    Args:
        values: The weight.
        axis: The axis of the output channels.
        most: The largest code.
        has_zero: Whether zero is a code.
        power_of_two: Whether scales are powers of two.
        floats: The type of floats that codes are values of; None for integers.
    """
    rows = np.moveaxis(values, axis, 0).reshape(values.shape[axis], -1)
    scale = _scales(rows, most, has_zero=has_zero, power_of_two=power_of_two)
    return WeightGrid(scale, axis, most, has_zero, floats=floats)


def block_grid(
    values: NDArray[Any],
    block_size: int,
    most: int,
    *,
    has_zero_point: bool = False,
    power_of_two: bool = False,
) -> WeightGrid:
    """Return the grid of a matrix of which each column is cut into blocks with a scale each.

    Args:
        values: Shape (inputs, outputs).
        block_size: Inputs in a block.
        most: The largest code.
        has_zero_point: Whether codes lie where the values of a block do, and not around zero.
        power_of_two: Whether scales are powers of two.
    """
    inputs, outputs = values.shape
    blocks = -(-inputs // block_size)
    padded = np.pad(values, ((0, blocks * block_size - inputs), (0, 0)))
    rows = padded.reshape(blocks, block_size, outputs).transpose(0, 2, 1).reshape(-1, block_size)
    shape = blocks, outputs
    if has_zero_point:
        scale, below = _shifted_scales(rows.astype(np.float64), most, power_of_two=power_of_two)
        return WeightGrid(
            scale.reshape(shape), 0, most, block_size=block_size, below=below.reshape(shape)
        )
    scale = _scales(rows, most, has_zero=True, power_of_two=power_of_two)
    return WeightGrid(scale.reshape(shape), 0, most, block_size=block_size)


def _scales(
    rows: NDArray[Any], most: int, *, has_zero: bool, power_of_two: bool
) -> NDArray[np.float32]:
    """Return the scale of each row: the one with the least squared error."""
    rows = rows.astype(np.float64)
    if not has_zero:
        # The best value for the sign is the mean magnitude (Rastegari et al., "XNOR-Net", 2016).
        scale = np.abs(rows).mean(axis=1)
    else:
        reach = np.abs(rows).max(axis=1)
        scale = reach / most if most >= FINE or power_of_two else _searched(rows, reach, most)
    scale = np.maximum(scale, SMALLEST_SCALE)
    if power_of_two:
        scale = 2.0 ** np.ceil(np.log2(scale))
    return np.asarray(scale, np.float32)


def _searched(rows: Floats, reach: Floats, most: int) -> Floats:
    best, least = reach / most, np.full(len(rows), np.inf)
    for share in SHARES:
        scale = np.maximum(reach * share / most, SMALLEST_SCALE)[:, None]
        codes = np.clip(np.rint(rows / scale), -most, most)
        error = np.square(rows - codes * scale).sum(axis=1)
        best = np.where(error < least, scale[:, 0], best)
        least = np.minimum(error, least)
    return best


def _shifted_scales(
    rows: Floats, most: int, *, power_of_two: bool
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return scale and number of codes below zero of each row, with the least squared error."""
    low, high = rows.min(axis=1).clip(max=0), rows.max(axis=1).clip(min=0)
    best, least = (np.ones(len(rows)), np.zeros(len(rows))), np.full(len(rows), np.inf)
    for share in SHARES[:1] if power_of_two else SHARES:
        scale = np.maximum((high - low) * share / most, SMALLEST_SCALE)
        scale = 2.0 ** np.ceil(np.log2(scale)) if power_of_two else scale
        below = np.rint(-low * share / scale)
        codes = np.rint(rows / scale[:, None]).clip(-below[:, None], most - below[:, None])
        error = np.square(rows - codes * scale[:, None]).sum(axis=1)
        best = (
            np.where(error < least, scale, best[0]),
            np.where(error < least, below, best[1]),
        )
        least = np.minimum(error, least)
    return best[0].astype(np.float32), best[1].astype(np.float32)
