"""Weights of several layers that fit what one layer gets, and what is kept of them."""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING

import numpy as np

from onnxcomp.recovery import held_out_error

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from onnxcomp.recovery import Problem
    from onnxcomp.statistics import InputStatistics
    from onnxcomp_passes.factorize.kinds import Choice
    from onnxcomp_passes.factorize.pieces import Solved
    from onnxcomp_passes.factorize.sites import Site

    Floats = NDArray[np.float64]
    Fitted = tuple[Solved, Floats, str]
    """Layers, what is added to the outputs, shape (groups, outputs), and how they were found."""


def fitted(site: Site, choice: Choice, inputs: InputStatistics, problem: Problem) -> Fitted:
    """Return the layers that are closest on held-out columns.

    Tried are those that are best for the outputs of the weights, for the outputs of the original
    after what the layers before now give, and for the weights themselves, each with its mean
    corrected and without. Without held-out columns the mean is corrected, and it is what has the
    least error on the columns that it was made from.

    Args:
        site: Where the weight is.
        choice: What it becomes.
        inputs: Statistics of what it multiplies, and perhaps of what the original does.
        problem: The layer as a least-squares problem on these.
    """
    best, least = None, inf
    for solved, how in _candidates(site, choice, problem, inputs):
        shift = problem.shift(solved.dense)
        tried = [shift] if inputs.held_out is None else [shift, np.zeros_like(shift)]
        for each in tried:
            error = _error(problem, solved, each, inputs)
            if best is None or error < least:
                best, least = (solved, each, how), error
    assert best is not None  # noqa: S101 - there is at least one candidate
    return best


def _candidates(
    site: Site, choice: Choice, problem: Problem, inputs: InputStatistics
) -> Iterator[tuple[Solved, str]]:
    weights, seconds = problem.weights, problem.damped
    yield choice.solve(site, weights, seconds), "fitted to its outputs"
    moments = inputs.fit
    if moments is not None and moments.paired:
        yield choice.solve(site, problem.target(), seconds), "fitted to what it now gets"
    yield choice.solve(site, weights, [None] * len(weights)), "fitted to its weights"


def _error(problem: Problem, solved: Solved, shift: Floats, inputs: InputStatistics) -> float:
    if inputs.held_out is None:
        return problem.error(solved.dense)
    return held_out_error(problem.weights, solved.dense, shift, inputs.held_out)
