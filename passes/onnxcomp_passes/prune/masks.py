"""Which elements of a weight stay: the highest scores, in one of several patterns."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from onnxcomp.statistics import Form

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from onnxcomp.graph import Weight
    from onnxcomp.statistics import Layer

    Floats = NDArray[np.floating]
    Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Pattern:
    """Which elements are compared with each other, and which become zero together.

    Args:
        kept: Of every ``group`` neighbouring inputs so many stay (N:M); 0: a share of all.
        group: Likewise.
        block: So many neighbouring inputs become zero together.
        by_row: Whether each output loses as many as any other.
    """

    kept: int = 0
    group: int = 0
    block: int = 1
    by_row: bool = False

    def keep(self, scores: Floats, sparsity: float) -> Mask:
        """Return which elements stay, those of the highest scores.

        Args:
            scores: Not negative, shape (groups, outputs, inputs).
            sparsity: The share that becomes zero; of no meaning to N:M.
        """
        groups, outputs, inputs = scores.shape
        if self.group:
            return self._keep_of_each(scores)
        padded = _padded(scores, self.block, 0.0)
        blocks = padded.reshape(groups, outputs, -1, self.block).sum(axis=3)
        if self.by_row:
            kept = _highest(blocks, sparsity)
        else:
            kept = _highest(blocks.reshape(1, -1), sparsity).reshape(blocks.shape)
        return np.repeat(kept, self.block, axis=2)[:, :, :inputs]

    def sparsity_of(self, sparsity: float) -> float:
        """Return the share of zeros that a mask has, about."""
        return 1 - self.kept / self.group if self.group else sparsity

    def _keep_of_each(self, scores: Floats) -> Mask:
        """Keep the highest few of each group; what a last, short one lacks is never kept."""
        groups, outputs, inputs = scores.shape
        padded = _padded(scores, self.group, -1.0)
        split = padded.reshape(groups, outputs, -1, self.group)
        lowest = np.argsort(split, axis=3, kind="stable")[..., : self.group - self.kept]
        mask = np.ones(split.shape, bool)
        np.put_along_axis(mask, lowest, values=False, axis=3)
        return mask.reshape(padded.shape)[:, :, :inputs]


def _highest(scores: Floats, sparsity: float) -> Mask:
    """Keep the highest scores along the last axis; of equal ones, the last."""
    dropped = round(sparsity * scores.shape[-1])
    if not dropped:
        return np.ones(scores.shape, bool)
    limit = np.partition(scores, dropped - 1, axis=-1)[..., dropped - 1 : dropped]
    below, equal = scores < limit, scores == limit
    missing = dropped - np.count_nonzero(below, axis=-1, keepdims=True)
    mask: Mask = ~below & ~(equal & (np.cumsum(equal, axis=-1) <= missing))
    return mask


def _padded(scores: Floats, multiple: int, value: float) -> Floats:
    missing = -scores.shape[2] % multiple
    if not missing:
        return scores
    return np.pad(scores, ((0, 0), (0, 0), (0, missing)), constant_values=value)


def matrix_form(layer: Layer) -> Form:
    """Return how a weight becomes matrices, also where what it multiplies is not known.

    Neighbouring inputs of a convolution are channels, seen through one tap of the kernel.
    """
    weight = layer.weight
    if not layer.uses:
        return _plain_form(weight)
    form = layer.form
    taps = prod(weight.shape[2:])
    if form.order != (0, 1, 2) or set(weight.op_types) != {"Conv"} or taps == 1:
        return form
    groups, outputs, inputs = form.matrices
    split = (groups, outputs, inputs // taps, taps)
    return Form(form.tensor, split, (0, 1, 3, 2), form.matrices)


def input_order(layer: Layer) -> NDArray[np.intp]:
    """Return the places, in the layer's columns, of the inputs of `matrix_form`."""
    *_, inputs = layer.form.matrices
    form = matrix_form(layer)
    numbers = np.broadcast_to(np.arange(inputs), layer.form.matrices)
    order: NDArray[np.intp] = form.to_matrices(layer.form.to_tensor(numbers))[0, 0]
    return order


def _plain_form(weight: Weight) -> Form:
    shape, axis = weight.shape, weight.output_axis
    order = (axis, *(each for each in range(len(shape)) if each != axis))
    return Form(shape, shape, order, (1, shape[axis], weight.size // shape[axis]))


def sparsity_of(values: NDArray[Any]) -> float:
    """Return the share of zeros."""
    return 1.0 - np.count_nonzero(values) / max(values.size, 1)
