"""Codes that fit what a layer gets: error feedback, least squares, mean correction."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from onnxcomp.recovery import Feedback, Problem, best_repair, support_of, takes_bias
from onnxcomp_passes.cluster.recoding import Grid

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import numpy as np
    from numpy.typing import NDArray

    from onnxcomp.statistics import InputStatistics, Layer
    from onnxcomp_passes.cluster.coding import Coding

    Code = Callable[[NDArray[Any]], Coding]
    """Codes a tensor without data."""


@dataclass(frozen=True, eq=False)
class Refined:
    """A coding and what makes up for its error.

    Args:
        coding: The coding.
        shift: What is added to each output, shape (groups, outputs).
        how: What was done, for the verdict.
    """

    coding: Coding
    shift: NDArray[np.float64]
    how: str


def refine(
    layer: Layer, values: NDArray[Any], inputs: InputStatistics, plain: Coding, code: Code
) -> Refined:
    """Code a weight for the columns that its layer gets.

    Tried are the nearest codes, error feedback from the weight itself, and error feedback from
    the weights that are best for what the layers before now give, each with its mean corrected
    and without. Which is kept is measured on held-out columns; where there are none, the mean is
    corrected, and it is what has the least error on the columns that it was made from.

    Args:
        layer: The layer.
        values: The original's weight.
        inputs: Statistics of what the layer multiplies, and perhaps of what the original does.
        plain: The original's weight, coded without data.
        code: Codes a tensor so.
    """
    moments = inputs.fit
    weights = layer.form.to_matrices(values)
    assert moments is not None  # noqa: S101 - the caller has looked
    shifts = all(takes_bias(use) for use in layer.uses)
    problem = Problem.of(weights, moments, shifts=shifts)
    made = (
        ((coding, how), layer.form.to_matrices(coding.decoded(values)))
        for coding, how in _candidates(layer, values, problem, plain, code, paired=moments.paired)
    )
    (coding, how), shift = best_repair(problem, made, inputs.held_out)
    return Refined(coding, shift, how)


def _candidates(
    layer: Layer,
    values: NDArray[Any],
    problem: Problem,
    plain: Coding,
    code: Code,
    *,
    paired: bool,
) -> Iterator[tuple[Coding, str]]:
    yield plain, "nearest codes"
    grid = Grid(plain, layer.form, values.dtype)
    if grid.width is None:
        return
    feedbacks = [Feedback(damped, grid.width) for damped in problem.damped]
    support = support_of(problem.weights)
    yield grid.recode(problem.weights, feedbacks, support), "error feedback"
    if paired:
        target = problem.target(support)
        again = code(layer.form.to_tensor(target).astype(values.dtype))
        grid = Grid(again, layer.form, values.dtype)
        found = grid.recode(target, feedbacks, support)
        yield found, "error feedback after refit"
        refitted = grid.refit(found, target, problem.second)
        if refitted is not None:
            yield refitted, "error feedback after refit, codebook refitted"
