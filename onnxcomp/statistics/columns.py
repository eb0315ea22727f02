"""What an operator multiplies its weight with: the columns of its input, a few of each sample.

A linear operator computes W x for many columns x: the rows of a matrix, the patches under a
kernel (im2col), the hidden states of a recurrent network. A `View` cuts them out of the tensors
that were observed, at most `MOST_COLUMNS` of a sample, picked at random places.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    Columns = NDArray[np.float32]

MOST_COLUMNS = 512
"""Columns of one sample that are looked at."""


class View(Protocol):
    """How columns lie in the observed tensors; equal views of one tensor give equal columns."""

    def columns(
        self,
        arrays: Sequence[NDArray[Any]],
        mask: NDArray[Any] | None,
        random: np.random.Generator,
    ) -> Columns:
        """Return columns, shape (groups, columns, width).

        Args:
            arrays: The observed tensors, of one sample.
            mask: Which places of a sequence count, where the model takes such an input; those
                of another shape are not concerned.
            random: Picks the places.
        """
        ...


@dataclass(frozen=True)
class Features:
    """One axis holds the features, all others count: the input of a Gemm or a MatMul.

    Args:
        axis: The axis of the features, counted from the end (-1 or -2), or 1 for channels.
        groups: Groups that the features are cut into.
    """

    axis: int = -1
    groups: int = 1

    def columns(
        self,
        arrays: Sequence[NDArray[Any]],
        mask: NDArray[Any] | None,
        random: np.random.Generator,
    ) -> Columns:
        """Return columns, shape (groups, columns, features / groups)."""
        (array,) = arrays
        rows = self.rows(array, mask, random)
        return rows.reshape(len(rows), self.groups, -1).transpose(1, 0, 2)

    def rows(
        self, array: NDArray[Any], mask: NDArray[Any] | None, random: np.random.Generator
    ) -> Columns:
        """Return rows of features, of the input or of what is added to the output.

        The same ``random`` picks the places of the same columns.

        Returns:
            Shape (columns, features).
        """
        # A matrix on the left may multiply a vector, all of whose axes are features.
        moved = array if array.ndim == 1 else np.moveaxis(array, self.axis, -1)
        rows = moved.reshape(-1, moved.shape[-1])
        kept = _kept_rows(moved.shape[:-1], mask)
        if kept is None:
            kept = np.arange(len(rows))
        return rows[kept[_picked(len(kept), random)]].astype(np.float32)


@dataclass(frozen=True)
class Patches:
    """What lies under the kernel of a convolution, for each of its outputs (im2col).

    Args:
        kernel: Sizes of the kernel.
        strides: Steps of the kernel.
        dilations: Distances of its taps.
        pads: Zeros before each axis, then after each; None for ``auto_pad`` SAME.
        lower: Whether SAME puts the odd zero before and not after.
        groups: Groups of the convolution.
    """

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    pads: tuple[int, ...] | None
    lower: bool
    groups: int

    def columns(
        self,
        arrays: Sequence[NDArray[Any]],
        mask: NDArray[Any] | None,
        random: np.random.Generator,
    ) -> Columns:
        """Return columns, shape (groups, columns, channels / groups * taps)."""
        del mask
        (array,) = arrays
        sizes = array.shape[2:]
        before, after = self._padding(sizes)
        padded = np.pad(array, ((0, 0), (0, 0), *zip(before, after, strict=True)))
        spans = [dilation * (taps - 1) + 1 for dilation, taps in self._taps()]
        counts = [
            (size - span) // stride + 1
            for size, span, stride in zip(padded.shape[2:], spans, self.strides, strict=True)
        ]
        batch, channels = array.shape[:2]
        picked = _picked(batch * max(0, prod(counts)), random)
        sample, *corners = np.unravel_index(picked, (batch, *counts))
        taps = np.indices(self.kernel).reshape(len(self.kernel), -1)
        places = tuple(
            corner[:, None] * stride + tap * dilation
            for corner, stride, tap, dilation in zip(
                corners, self.strides, taps, self.dilations, strict=True
            )
        )
        # Shape (columns, taps, channels), since advanced indices on both sides come first.
        index: Any = (sample[:, None], slice(None), *places)
        patches = padded[index].astype(np.float32)
        shape = (len(picked), taps.shape[1], self.groups, channels // self.groups)
        grouped: Columns = patches.reshape(shape).transpose(2, 0, 3, 1)
        return grouped.reshape(self.groups, len(picked), -1)

    def rows(
        self, array: NDArray[Any], mask: NDArray[Any] | None, random: np.random.Generator
    ) -> Columns:
        """Return what is added where the kernel gives its outputs, shape (columns, channels).

        The same ``random`` picks the places of the same columns.
        """
        del mask
        rows = np.moveaxis(array, 1, -1).reshape(-1, array.shape[1])
        return rows[_picked(len(rows), random)].astype(np.float32)

    def _taps(self) -> zip[tuple[int, int]]:
        return zip(self.dilations, self.kernel, strict=True)

    def _padding(self, sizes: tuple[int, ...]) -> tuple[list[int], list[int]]:
        rank = len(sizes)
        if self.pads is not None:
            return list(self.pads[:rank]), list(self.pads[rank:])
        before, after = [], []
        for size, stride, (dilation, taps) in zip(sizes, self.strides, self._taps(), strict=True):
            outputs = -(-size // stride)
            total = max(0, (outputs - 1) * stride + dilation * (taps - 1) + 1 - size)
            half = total // 2
            before.append(total - half if self.lower else half)
            after.append(half if self.lower else total - half)
        return before, after


@dataclass(frozen=True)
class HiddenStates:
    """What a recurrent layer multiplies its recurrence weight with: each step's last state.

    The observed tensors are all hidden states, shape (steps, directions, batch, width), and the
    initial one, shape (directions, batch, width), where there is one.

    Args:
        reverse: For each direction, whether it runs backwards.
    """

    reverse: tuple[bool, ...]

    def columns(
        self,
        arrays: Sequence[NDArray[Any]],
        mask: NDArray[Any] | None,
        random: np.random.Generator,
    ) -> Columns:
        """Return columns, shape (directions, columns, width)."""
        del mask
        states = arrays[0]
        initial = arrays[1] if len(arrays) > 1 else np.zeros(states.shape[1:], states.dtype)
        directions = []
        for place, reverse in enumerate(self.reverse):
            own, first = states[:, place], initial[None, place]
            before = np.concatenate([own[1:], first] if reverse else [first, own[:-1]])
            directions.append(before.reshape(-1, before.shape[-1]))
        stacked = np.stack(directions)
        return stacked[:, _picked(stacked.shape[1], random)].astype(np.float32)


def _picked(count: int, random: np.random.Generator) -> NDArray[np.intp]:
    """Return the places of the columns that are looked at, in order."""
    if count <= MOST_COLUMNS:
        return np.arange(count)
    return np.sort(random.choice(count, MOST_COLUMNS, replace=False, shuffle=False))


def _kept_rows(shape: tuple[int, ...], mask: NDArray[Any] | None) -> NDArray[np.intp] | None:
    """Return the rows that a mask lets count, if it fits the leading axes or their product."""
    if mask is None or mask.ndim != 2:  # noqa: PLR2004 - samples and places
        return None
    if shape[:2] == mask.shape:
        repeated = np.repeat(mask.reshape(-1) != 0, prod(shape[2:]))
    elif shape == (mask.size,):
        repeated = mask.reshape(-1) != 0
    else:
        return None
    return np.flatnonzero(repeated)
