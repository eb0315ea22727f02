"""Masks and weights that fit what a layer gets: second-order scores, least squares, the mean."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from onnxcomp.recovery import Problem, best_repair, refit_on_support, takes_bias
from passes.prune.masks import input_order
from passes.prune.scoring import Sweep, input_scores, magnitude_scores

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from onnxcomp.statistics import InputStatistics, Layer
    from passes.prune.masks import Mask, Pattern

    Floats = NDArray[np.float64]

Criterion = Literal["magnitude", "wanda", "sparsegpt"]


@dataclass(frozen=True)
class Aim:
    """What is to become of a weight.

    Args:
        criterion: By what it is chosen which elements stay.
        pattern: Which become zero together.
        sparsity: The share that becomes zero.
    """

    criterion: Criterion
    pattern: Pattern
    sparsity: float


@dataclass(frozen=True, eq=False)
class PrunedWeight:
    """A weight with zeros, and what makes up for them.

    Args:
        values: The weight.
        shift: What is added to each output, shape (groups, outputs).
        how: What was done, for the verdict.
    """

    values: NDArray[Any]
    shift: Floats
    how: str


def prune_weight(
    layer: Layer,
    values: NDArray[Any],
    inputs: InputStatistics,
    aim: Aim,
) -> PrunedWeight:
    """Prune a weight for the columns that its layer gets.

    Tried are the mask by the criterion, and its weights fitted to the outputs of the original by
    least squares: as if what the layer gets were what the original got, and for what it is. Each
    is tried with its mean corrected and without. What is kept is measured on held-out columns.

    Args:
        layer: The layer.
        values: The original's weight.
        inputs: Statistics of what the layer multiplies, and perhaps of what the original does.
        aim: What is to be reached.
    """
    moments = inputs.fit
    assert moments is not None  # noqa: S101 - the caller has looked
    weights = layer.form.to_matrices(values)
    problem = Problem.of(weights, moments, shifts=all(takes_bias(use) for use in layer.uses))
    targets = [(problem.weights, "least squares")]
    if moments.paired:
        targets.append((problem.target(), "least squares for what the layer gets"))

    def candidates() -> Iterator[tuple[tuple[Floats, str], Floats]]:
        for target, how in targets:
            mask = _choose(layer, target, problem, aim)
            if target is problem.weights:
                plain = np.where(mask, target, 0.0)
                yield (plain, f"{aim.criterion} mask"), plain
            fitted = np.stack(
                [
                    refit_on_support(*each)
                    for each in zip(target, mask, problem.damped, strict=True)
                ]
            )
            yield (fitted, f"{aim.criterion} mask, {how}"), fitted

    (found, how), shift = best_repair(problem, candidates(), inputs.held_out)
    return PrunedWeight(layer.form.to_tensor(found).astype(values.dtype), shift, how)


def _choose(layer: Layer, weights: Floats, problem: Problem, aim: Aim) -> Mask:
    """Return which weights of a layer stay, shape (groups, outputs, inputs)."""
    order = input_order(layer)
    if aim.criterion == "sparsegpt":
        return Sweep(problem.damped, aim.pattern, order).mask(weights, aim.sparsity)
    is_wanda = aim.criterion == "wanda"
    scores = input_scores(weights, problem.second) if is_wanda else magnitude_scores(weights)
    kept = np.empty(weights.shape, bool)
    kept[:, :, order] = aim.pattern.keep(scores[:, :, order], aim.sparsity)
    return kept
