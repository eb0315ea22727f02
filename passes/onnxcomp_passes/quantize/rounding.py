"""Rounding weights to their grids for what layers give: error feedback, mean correction."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from onnxcomp.recovery import Feedback, Problem, best_repair, support_of, takes_bias

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import numpy as np
    from numpy.typing import NDArray

    from onnxcomp.statistics import InputStatistics, Layer
    from onnxcomp_passes.quantize.weight_grids import WeightGrid

    Floats = NDArray[np.float64]
    MakeGrid = Callable[[NDArray[Any]], WeightGrid]


@dataclass(frozen=True, eq=False)
class RoundedWeight:
    """A weight on a grid, and what makes up for the error.

    Args:
        grid: The grid.
        codes: The codes, of the weight's shape.
        shift: What is added to each output, shape (groups, outputs).
        how: What was done, for the verdict.
    """

    grid: WeightGrid
    codes: NDArray[np.int32]
    shift: Floats
    how: str


def round_weight(
    layer: Layer, values: NDArray[Any], inputs: InputStatistics, make: MakeGrid
) -> RoundedWeight:
    """Round a weight for the columns that its layer gets.

    Tried are the nearest codes, error feedback from the weight itself, and error feedback from
    the weights that are best for what the layers before now give, each with its mean corrected
    and without. What is kept has the least error on held-out columns; where there are none, on
    those that it was made from.

    Args:
        layer: The layer.
        values: The original's weight.
        inputs: Statistics of what the layer multiplies, and perhaps of what the original does.
        make: Makes a grid for values.
    """
    moments = inputs.fit
    assert moments is not None  # noqa: S101 - the caller has looked
    weights = layer.form.to_matrices(values)
    problem = Problem.of(weights, moments, shifts=all(takes_bias(use) for use in layer.uses))
    made = (
        (one, layer.form.to_matrices(one[0].values(one[1])))
        for one in _candidates(layer, values, problem, make, paired=moments.paired)
    )
    (grid, codes, how), shift = best_repair(problem, made, inputs.held_out)
    return RoundedWeight(grid, codes, shift, how)


def _candidates(
    layer: Layer, values: NDArray[Any], problem: Problem, make: MakeGrid, *, paired: bool
) -> Iterator[tuple[WeightGrid, NDArray[np.int32], str]]:
    grid = make(values)
    yield grid, grid.codes(values), "nearest codes"
    feedbacks = [Feedback(damped) for damped in problem.damped]
    support = support_of(problem.weights)
    codes = grid.fed_back(problem.weights, layer.form, feedbacks, support)
    if codes is None:
        return
    yield grid, codes, "error feedback"
    if paired:
        target = problem.target(support)
        grid = make(layer.form.to_tensor(target).astype(values.dtype))
        codes = grid.fed_back(target, layer.form, feedbacks, support)
        if codes is not None:
            yield grid, codes, "error feedback after refit"
