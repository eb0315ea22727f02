"""Shares of zeros for each weight, so that a model of a given share loses as little as it can."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from onnxcomp.allocation import Option, allocate
from onnxcomp.recovery import Problem, held_out_error, output_errors
from onnxcomp.statistics import (
    InputStatistics,
    held_out_samples,
    layers,
    one_thread,
    walk,
    watch_inputs,
)
from passes.prune.masks import input_order, matrix_form
from passes.prune.scoring import Sweep, magnitude_scores

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from onnxcomp.graph import Model, Weight
    from onnxcomp.pipeline import Context
    from onnxcomp.statistics import Layer
    from passes.prune.masks import Pattern

    Floats = NDArray[np.float64]

SHARES = (0.0, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95)
"""Shares of zeros that are weighed up, and the one that is asked for."""

SAMPLES = 16
"""Samples, or complete feeds, on which it is measured what a weight matters."""

ROWS = 256
"""Outputs of a layer on which the error at each share is measured."""


def by_sensitivity(
    model: Model, weights: Sequence[Weight], pattern: Pattern, sparsity: float, context: Context
) -> list[float]:
    """Return the share of each weight that becomes zero, so that all together have as many.

    Errors of layers at each share are those after error feedback, on held-out columns. What they
    mean for the model is measured by running it with one weight at a time pruned as far as is
    asked for; from there the loss is taken to grow as the layer's own error does.

    Args:
        model: The model, before anything is pruned.
        weights: Weights of it that are pruned.
        pattern: Which elements become zero together.
        sparsity: The share of all that becomes zero.
        context: Samples, or statistics of the model.
    """
    shares = sorted({*SHARES, sparsity})
    found = {id(layer.weight.tensor): layer for layer in layers(model)}
    chosen = [found[id(weight.tensor)] for weight in weights]
    inputs = _inputs(model, chosen, context.part(0, 0.2))
    curves, probes = [], []
    with one_thread():
        for done, (layer, observed) in enumerate(zip(chosen, inputs, strict=True)):
            curves.append(_curve(layer, observed, pattern, shares))
            if context.samples is not None:
                probes.append(_probe(layer, observed, pattern, sparsity))
            context.part(0.2, 0.6).progress((done + 1) / len(chosen))
    losses = [curve[shares.index(sparsity)] for curve in curves]
    if context.samples is not None:
        changes = [[(layer.weight.tensor, one)] for layer, one in zip(chosen, probes, strict=True)]
        unseen = held_out_samples(context.samples, SAMPLES)
        measured = output_errors(model, changes, unseen, context.part(0.6, 1).progress)
        losses = _with_unseen(measured, losses)
    options = [
        _options(weight.size, shares, curve, lost / (curve[shares.index(sparsity)] or 1.0))
        for weight, curve, lost in zip(weights, curves, losses, strict=True)
    ]
    budget = sum(round(weight.size * (1 - sparsity)) for weight in weights)
    places = allocate(options, budget)
    assert places is not None  # noqa: S101 - the share that was asked for fits
    return [shares[place] for place in places]


def _options(
    size: int, shares: Sequence[float], curve: Sequence[float], factor: float
) -> list[Option]:
    pairs = zip(shares, curve, strict=True)
    return [Option(round(size * (1 - share)), factor * error) for share, error in pairs]


def _with_unseen(losses: Sequence[float], errors: Sequence[float]) -> list[float]:
    """Return losses of the model; a weight that no sample needs counts like the median one."""
    ratios = [loss / error for loss, error in zip(losses, errors, strict=True) if loss and error]
    typical = float(np.median(ratios)) if ratios else 1.0
    pairs = zip(losses, errors, strict=True)
    return [loss if loss > 0 else typical * error for loss, error in pairs]


def _inputs(model: Model, chosen: Sequence[Layer], context: Context) -> list[InputStatistics]:
    if context.samples is not None:
        watches, inputs = watch_inputs(chosen)
        walk((model,), watches, context.samples, context.progress)
        return inputs
    known = context.statistics
    return [InputStatistics() if known is None else known.of(layer) for layer in chosen]


def _curve(
    layer: Layer, inputs: InputStatistics, pattern: Pattern, shares: Sequence[float]
) -> list[float]:
    """Return the squared error at each share, relative to the outputs or to the weight."""
    weights = layer.weight.load()
    if inputs.fit is None:
        scores = np.sort(magnitude_scores(weights.reshape(-1)))
        lost = np.concatenate([[0.0], np.cumsum(scores)])
        return [float(lost[round(share * len(scores))] / (lost[-1] or 1.0)) for share in shares]
    matrices = layer.form.to_matrices(weights)
    problem = Problem.of(matrices, inputs.fit, shifts=False)
    part = replace(problem, weights=problem.weights[:, :: max(1, matrices.shape[1] // ROWS)])
    none = np.zeros(part.weights.shape[:2])
    sweep = Sweep(problem.damped, pattern, input_order(layer))
    errors = []
    for found in sweep.pruned(part.weights, shares):
        if inputs.held_out is None:
            errors.append(part.error(found))
        else:
            errors.append(held_out_error(part.weights, found, none, inputs.held_out))
    return errors


def _probe(
    layer: Layer, inputs: InputStatistics, pattern: Pattern, sparsity: float
) -> NDArray[Any]:
    """Return a weight as it is when pruned."""
    values = layer.weight.load()
    if inputs.fit is None:
        form = matrix_form(layer)
        mask = pattern.keep(magnitude_scores(form.to_matrices(values)), sparsity)
        return np.where(form.to_tensor(mask), values, values.dtype.type(0))
    problem = Problem.of(layer.form.to_matrices(values), inputs.fit, shifts=False)
    sweep = Sweep(problem.damped, pattern, input_order(layer))
    (found,) = sweep.pruned(problem.weights, [sparsity])
    return layer.form.to_tensor(found).astype(values.dtype)
