"""Shares of zeros for each weight, so that a model of a given share loses as little as it can."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from onnxcomp.allocation import Option, allocate
from onnxcomp.layerwise import Sensed, costs_of
from onnxcomp.recovery import Problem, held_out_error
from onnxcomp.statistics import layers
from onnxcomp_passes.prune.masks import input_order, matrix_form
from onnxcomp_passes.prune.scoring import Sweep, magnitude_scores

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from onnxcomp.graph import Model, Weight
    from onnxcomp.pipeline import Context
    from onnxcomp.statistics import InputStatistics, Layer
    from onnxcomp_passes.prune.masks import Pattern

    Floats = NDArray[np.float64]

SHARES = (0.0, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95)
"""Shares of zeros that are weighed up, beside those that are probed."""

ROWS = 256
"""Outputs of a layer on which the error at each share is measured."""


def by_sensitivity(
    model: Model, weights: Sequence[Weight], pattern: Pattern, sparsity: float, context: Context
) -> list[float]:
    """Return the share of each weight that becomes zero, so that all together have as many.

    Errors of layers at each share are those after error feedback, on held-out columns. What they
    mean for the model is measured by running it with one weight at a time pruned as far as is
    asked for, and half of the way further, which is the most that a weight loses; in between what
    the layer's error means is interpolated.

    Args:
        model: The model, before anything is pruned.
        weights: Weights of it that are pruned.
        pattern: Which elements become zero together.
        sparsity: The share of all that becomes zero.
        context: Samples, or statistics of the model.
    """
    if not weights:
        return []
    probed = (sparsity, (1 + sparsity) / 2)
    shares = sorted({*(share for share in SHARES if share < probed[-1]), *probed})
    found = {id(layer.weight.tensor): layer for layer in layers(model)}
    chosen = [found[id(weight.tensor)] for weight in weights]
    tried = () if context.samples is None else probed

    def sense(layer: Layer, inputs: InputStatistics) -> Sensed:
        errors, probes = _sensed(layer, inputs, pattern, shares, tried)
        at = [errors[shares.index(share)] for share in tried]
        return Sensed(errors, list(zip(at, probes, strict=True)))

    # More zeros never cost less.
    costs = np.maximum.accumulate(costs_of(model, chosen, sense, context), axis=1)
    options = [
        [
            Option(round(weight.size * (1 - share)), cost)
            for share, cost in zip(shares, each, strict=True)
        ]
        for weight, each in zip(weights, costs.tolist(), strict=True)
    ]
    places = allocate(options, sum(round(each.size * (1 - sparsity)) for each in weights))
    assert places is not None  # noqa: S101 - the share that was asked for fits
    return [shares[place] for place in places]


def _sensed(
    layer: Layer,
    inputs: InputStatistics,
    pattern: Pattern,
    shares: Sequence[float],
    probed: Sequence[float],
) -> tuple[list[float], list[NDArray[Any]]]:
    """Return the squared error at each share, and the weight as it is when it is probed.

    Errors are relative to the outputs of the layer, or to the weight where they are not known.
    """
    values = layer.weight.load()
    if inputs.fit is None:
        return _by_magnitude(layer, values, pattern, shares, probed)
    problem = Problem.of(layer.form.to_matrices(values), inputs.fit, shifts=False)
    part = replace(
        problem, weights=problem.weights[:, :: max(1, problem.weights.shape[1] // ROWS)]
    )
    none = np.zeros(part.weights.shape[:2])
    sweep = Sweep(problem.damped, pattern, input_order(layer))
    errors = []
    for found in sweep.pruned(part.weights, shares):
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
    shares: Sequence[float],
    probed: Sequence[float],
) -> tuple[list[float], list[NDArray[Any]]]:
    """Return the same of a layer of which it is not known what it multiplies."""
    form = matrix_form(layer)
    scores = magnitude_scores(form.to_matrices(values))
    lost = np.concatenate([[0.0], np.cumsum(np.sort(scores, axis=None))])
    errors = [float(lost[round(share * scores.size)] / (lost[-1] or 1.0)) for share in shares]
    masks = [form.to_tensor(pattern.keep(scores, share)) for share in probed]
    return errors, [np.where(mask, values, values.dtype.type(0)) for mask in masks]
