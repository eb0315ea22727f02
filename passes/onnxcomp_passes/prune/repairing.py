"""Masks and weights that fit what a layer gets: second-order scores, least squares, the mean."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from onnxcomp.recovery import Problem, best_repair, refit_on_support, takes_bias
from onnxcomp_passes.prune.alternating import alternating_mask
from onnxcomp_passes.prune.masks import input_order
from onnxcomp_passes.prune.scoring import Sweep, input_scores, magnitude_scores

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    from onnxcomp.statistics import InputStatistics, Layer
    from onnxcomp_passes.prune.masks import Mask, Pattern

    Floats = NDArray[np.float64]
    Choose = Callable[[Floats, float], Mask]
    """Says which weights stay, given them and the share that becomes zero."""

Criterion = Literal["magnitude", "wanda", "sparsegpt"]


@dataclass(frozen=True)
class Aim:
    """What is to become of a weight.

    Args:
        criterion: By what it is chosen which elements stay.
        pattern: Which become zero together.
        sparsity: The share that becomes zero.
        steps: Steps in which it becomes so, with a fit of what is left after each.
    """

    criterion: Criterion
    pattern: Pattern
    sparsity: float
    steps: int = 1


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
    is tried with its mean corrected and without. What is kept is measured on held-out columns; at
    last mean and deviation of each output become what they were.

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
    choose = _chooser(layer, problem, aim)

    def candidates() -> Iterator[tuple[tuple[Floats, str], Floats]]:
        target, how = problem.weights, "least squares"
        fitted = _fitted(problem, target, choose, aim)
        plain = np.where(fitted != 0, target, 0.0)
        yield (plain, f"{aim.criterion} mask"), plain
        yield (fitted, f"{aim.criterion} mask, {how}"), fitted
        if moments.paired:
            target, how = problem.target(), "least squares for what the layer gets"
            fitted = _fitted(problem, target, choose, aim)
            yield (fitted, f"{aim.criterion} mask, {how}"), fitted
        if aim.criterion == "sparsegpt":
            agreed = _agreed(problem, target, fitted, aim, input_order(layer))
            if agreed is not None:
                yield (agreed, f"{aim.criterion} mask, alternated, {how}"), agreed

    (best, how), _ = best_repair(problem, candidates(), inputs.held_out)
    found, shift = problem.corrected(best)
    how = f"{how}, deviations corrected" if problem.shifts else how
    return PrunedWeight(layer.form.to_tensor(found).astype(values.dtype), shift, how)


def _fitted(problem: Problem, target: Floats, choose: Choose, aim: Aim) -> Floats:
    """Prune weights in steps, most in the first ones, and fit what is left after each."""
    found = target
    for step in range(1, aim.steps + 1):
        # Zhu and Gupta, "To prune, or not to prune", 2017.
        share = aim.sparsity * (1 - (1 - step / aim.steps) ** 3)
        parts = zip(target, choose(found, share), problem.damped, strict=True)
        found = np.stack([refit_on_support(*part) for part in parts])
    return found


def _agreed(
    problem: Problem, target: Floats, fitted: Floats, aim: Aim, order: NDArray[np.intp]
) -> Floats | None:
    """Fit what is left by a mask that was found by turns; None where that would take too long.

    Both start from weights that were fitted by another mask.
    """
    mask = fitted != 0
    found = alternating_mask(target, mask, problem.damped, aim.pattern, aim.sparsity, order)
    if found is None:
        return None
    parts = zip(target, found, problem.damped, fitted, strict=True)
    return np.stack([refit_on_support(*part) for part in parts])


def _chooser(layer: Layer, problem: Problem, aim: Aim) -> Choose:
    """Return what says which weights of a layer stay."""
    order = input_order(layer)
    if aim.criterion == "sparsegpt":
        return Sweep(problem.damped, aim.pattern, order).mask

    def choose(weights: Floats, sparsity: float) -> Mask:
        is_wanda = aim.criterion == "wanda"
        scores = input_scores(weights, problem.second) if is_wanda else magnitude_scores(weights)
        kept = np.empty(weights.shape, bool)
        kept[:, :, order] = aim.pattern.keep(scores[:, :, order], sparsity)
        return kept

    return choose
