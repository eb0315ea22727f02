"""Masks and weights that fit what a layer gets: second-order scores, least squares, the mean."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from onnxcomp.recovery import refit_on_support
from onnxcomp_passes.prune.alternating import alternating_mask
from onnxcomp_passes.prune.masks import input_order
from onnxcomp_passes.prune.scoring import Sweep, input_scores, magnitude_scores

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    from onnxcomp.recovery import Problem
    from onnxcomp.statistics import Layer
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


def pruned_weights(layer: Layer, problem: Problem, aim: Aim) -> Iterator[tuple[Floats, str]]:
    """Yield weights pruned for the columns that their layer gets, shape (groups, outputs, inputs).

    These are the mask by the criterion, and its weights fitted to the outputs of the original by
    least squares: as if what the layer gets were what the original got, and for what it is.

    Args:
        layer: The layer.
        problem: The same as a least-squares problem.
        aim: What is to be reached.

    Yields:
        The weights, and what was done in words.
    """
    choose = _chooser(layer, problem, aim)
    target, how = problem.weights, "least squares"
    fitted = _fitted(problem, target, choose, aim)
    yield np.where(fitted != 0, target, 0.0), f"{aim.criterion} mask"
    yield fitted, f"{aim.criterion} mask, {how}"
    if problem.is_paired:
        target, how = problem.target(), "least squares for what the layer gets"
        fitted = _fitted(problem, target, choose, aim)
        yield fitted, f"{aim.criterion} mask, {how}"
    if aim.criterion == "sparsegpt":
        agreed = _agreed(problem, target, fitted, aim, input_order(layer))
        if agreed is not None:
            yield agreed, f"{aim.criterion} mask, alternated, {how}"


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
