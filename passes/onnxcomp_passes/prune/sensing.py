"""What a layer loses by zeros, and shares of them so that a whole model loses little."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from onnxcomp.allocation import Option, allocate
from onnxcomp.recovery import Problem, held_out_error
from onnxcomp_passes.prune.masks import input_order, matrix_form
from onnxcomp_passes.prune.scoring import Sweep, magnitude_scores

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from onnxcomp.graph import Weight
    from onnxcomp.layerwise import Curves
    from onnxcomp.statistics import InputStatistics, Layer
    from onnxcomp_passes.prune.masks import Pattern

    Floats = NDArray[np.float64]

SHARES = (0.0, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98, 0.995)
"""Shares of zeros that are weighed up."""

PROBES = (0.3, 0.5, 0.7, 0.8, 0.9)
"""Those at which it is measured what the outputs of a model lose."""

ROWS = 256
"""Outputs of a layer on which the error at each share is measured."""


def by_sensitivity(weights: Sequence[Weight], curves: Curves, sparsity: float) -> list[float]:
    """Return the share of each weight that becomes zero, so that all together have as many.

    None loses more than half of the way further than is asked for. What a share between those
    that were measured costs is interpolated.

    Args:
        weights: The weights.
        curves: What they cost at `SHARES`.
        sparsity: The share of all that becomes zero.
    """
    if not weights:
        return []
    most = (1 + sparsity) / 2
    shares = sorted({*(share for share in SHARES if share < most), sparsity, most})
    options = []
    for weight, measured in zip(weights, curves.costs, strict=True):
        # More zeros never cost less.
        amplitudes = np.sqrt(np.maximum.accumulate(measured))
        costs = np.square(np.interp(shares, SHARES, amplitudes)).tolist()
        kept = [round(weight.size * (1 - share)) for share in shares]
        options.append([Option(*pair) for pair in zip(kept, costs, strict=True)])
    chosen = allocate(options, sum(round(each.size * (1 - sparsity)) for each in weights))
    assert chosen is not None  # noqa: S101 - the share that was asked for fits
    return [shares[index] for index in chosen]


def sensed(
    layer: Layer, inputs: InputStatistics, pattern: Pattern, probed: Sequence[float]
) -> tuple[list[float], list[NDArray[Any]]]:
    """Return the squared error at each of `SHARES`, and the weight as it is at some shares.

    Errors are those after error feedback, on held-out columns where there are some; relative to
    the outputs of the layer, or to the weight where they are not known.

    Args:
        layer: The layer.
        inputs: Statistics of what it multiplies.
        pattern: Which elements become zero together.
        probed: Shares at which the weight is returned.
    """
    values = layer.weight.load()
    if inputs.fit is None:
        return _by_magnitude(layer, values, pattern, probed)
    problem = Problem.of(layer.form.to_matrices(values), inputs.fit, shifts=False)
    part = replace(
        problem, weights=problem.weights[:, :: max(1, problem.weights.shape[1] // ROWS)]
    )
    none = np.zeros(part.weights.shape[:2])
    sweep = Sweep(problem.damped, pattern, input_order(layer))
    errors = []
    for found in sweep.pruned(part.weights, SHARES):
        if inputs.held_out is None:
            errors.append(part.error(found))
        else:
            errors.append(held_out_error(part.weights, found, none, inputs.held_out))
    probes = [
        layer.form.to_tensor(found).astype(values.dtype)
        for found in sweep.pruned(problem.weights, probed)
    ]
    return errors, probes


def _by_magnitude(
    layer: Layer,
    values: NDArray[Any],
    pattern: Pattern,
    probed: Sequence[float],
) -> tuple[list[float], list[NDArray[Any]]]:
    """Return the same of a layer of which it is not known what it multiplies."""
    form = matrix_form(layer)
    scores = magnitude_scores(form.to_matrices(values))
    lost = np.concatenate([[0.0], np.cumsum(np.sort(scores, axis=None))])
    errors = [float(lost[round(share * scores.size)] / (lost[-1] or 1.0)) for share in SHARES]
    masks = [form.to_tensor(pattern.keep(scores, share)) for share in probed]
    return errors, [np.where(mask, values, values.dtype.type(0)) for mask in masks]
