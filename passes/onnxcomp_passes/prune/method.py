"""What becomes of one weight that is pruned: zeros by magnitude, or for what its layer gets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from onnxcomp.layerwise import Method
from onnxcomp.stores import AffineStore, SparseStore, leave_out_zeros
from onnxcomp_passes.prune.masks import matrix_form, sparsity_of
from onnxcomp_passes.prune.repairing import Aim, Criterion, pruned_weights
from onnxcomp_passes.prune.scoring import magnitude_scores

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from numpy.typing import NDArray

    from onnxcomp.graph import Constant
    from onnxcomp.layerwise.method import Tables
    from onnxcomp.recovery import Problem
    from onnxcomp.statistics import Layer
    from onnxcomp.stores import Store
    from onnxcomp_passes.prune.masks import Pattern

    Floats = NDArray[np.float64]

WORTHWHILE = 0.9
"""The largest share of its bytes that a weight may take afterwards; else it stays as it is."""


@dataclass(frozen=True, eq=False)
class Pruning(Method["NDArray[Any]"]):
    """Makes weights zero; what is made of one are its values.

    Args:
        levels: The share of each weight that becomes zero.
        pattern: Which become zero together.
        criterion: By what it is chosen which, where there is data.
        steps: Steps in which each layer is pruned, with a fit of what is left after each.
    """

    levels: Mapping[Constant, float]
    pattern: Pattern
    criterion: Criterion
    steps: int

    def plain(self, layer: Layer, values: NDArray[Any]) -> tuple[NDArray[Any], str]:
        """Return a weight whose smallest elements are zero."""
        form = matrix_form(layer)
        scores = magnitude_scores(form.to_matrices(values.astype(np.float32, copy=False)))
        kept = self.pattern.keep(scores, self.levels[layer.weight.tensor])
        pruned = np.where(form.to_tensor(kept), values, values.dtype.type(0))
        return pruned, f"{sparsity_of(pruned):.1%} zeros by magnitude"

    def candidates(
        self, layer: Layer, values: NDArray[Any], problem: Problem, how: str
    ) -> Iterator[tuple[tuple[NDArray[Any], str], Floats]]:
        """Yield weights with zeros that fit what their layer gets."""
        del how, values
        aim = Aim(self.criterion, self.pattern, self.levels[layer.weight.tensor], self.steps)
        for found, done in pruned_weights(layer, problem, aim):
            zeros = f"{sparsity_of(found):.1%} zeros by {done}"
            yield (layer.form.to_tensor(found), zeros), found

    def finished(
        self, layer: Layer, problem: Problem, made: NDArray[Any], shift: Floats
    ) -> tuple[NDArray[Any], Floats, str]:
        """Give each output the mean and the deviation that it had."""
        if not problem.shifts:
            return made, shift, ""
        found, shift = problem.corrected(layer.form.to_matrices(made))
        return layer.form.to_tensor(found), shift, ", deviations corrected"

    def store(
        self, layer: Layer, made: NDArray[Any], values: NDArray[Any], present: Tables
    ) -> Store:
        """Return the smallest store of a weight without its zeros."""
        weight = layer.weight
        pruned = made.astype(values.dtype, copy=False)
        plain = AffineStore(weight.shape, weight.dtype, pruned, weight.opset, is_dequantized=False)
        store = leave_out_zeros(plain, present)
        if isinstance(store, SparseStore):
            return store
        before = weight.tensor.nbytes
        raise ValueError(_hardly(made, before, before))

    def why_not(self, made: NDArray[Any], before: int, after: int) -> str | None:
        """Return why zeros are not worth the bytes that say where they are; None if they are."""
        return None if after <= WORTHWHILE * before else _hardly(made, before, after)


def _hardly(made: NDArray[Any], before: int, after: int) -> str:
    zeros = f"{sparsity_of(made):.0%} zeros"
    return f"would hardly be smaller for {zeros} ({before} bytes, {after} stored)"
