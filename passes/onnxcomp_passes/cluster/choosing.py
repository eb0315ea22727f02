"""Bits for each weight, so that a file of a given size loses as little as it can."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from onnxcomp.layerwise import Allotment, Sensed, costs_of
from onnxcomp.recovery import support_of
from onnxcomp.statistics import layers
from onnxcomp_passes.cluster.curves import (
    CHOICES,
    PROBES,
    Choice,
    curve_of,
    feedbacks_of,
    problem_of,
)
from onnxcomp_passes.cluster.recoding import Grid

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from onnxcomp.graph import Model, Weight
    from onnxcomp.pipeline import Context
    from onnxcomp.recovery import Feedback, Problem
    from onnxcomp.statistics import InputStatistics, Layer
    from onnxcomp_passes.cluster.method import Clustering


def allotment_of(
    model: Model, weights: Sequence[Weight], method: Clustering, setting: str, context: Context
) -> Allotment[Choice]:
    """Measure several weights, so that codings are chosen for any budget.

    Errors of layers are those after error feedback, on a part of their outputs and on held-out
    columns: feedback from few columns looks perfect on those. What they mean
    for the model is measured by running it with one weight at a time coded coarsely, at two
    numbers of bits.

    Args:
        model: The model, before anything is clustered.
        weights: Weights of it that will be clustered.
        method: Codes values of a weight, without data, at some bits.
        setting: Says how, for what is recalled.
        context: Samples, or statistics of the model; without either, errors of the weights stand
            for those of the outputs.
    """
    name = json.dumps(["costs of codings", setting, [weight.name for weight in weights]])
    nbytes, costs = context.recall(name, lambda: _measured(model, weights, method, context))
    return Allotment(
        model,
        weights,
        CHOICES,
        nbytes=nbytes,
        costs=costs,
        is_repaired=context.samples is not None,
    )


def _measured(
    model: Model, weights: Sequence[Weight], method: Clustering, context: Context
) -> tuple[list[tuple[int, ...]], list[list[float]]]:
    """Return the bytes of each weight at each choice, and what the model's outputs lose by it."""
    of_weight = {layer.weight.tensor: layer for layer in layers(model)}
    nbytes = []

    def sense(layer: Layer, inputs: InputStatistics) -> Sensed:
        problem = problem_of(layer, inputs)
        feedbacks = [] if problem is None else feedbacks_of(problem)
        curve = curve_of(layer.weight, problem, feedbacks, inputs.held_out)
        nbytes.append(curve.nbytes)
        probes = []
        for choice in PROBES if context.samples is not None else ():
            values = _probe(layer, problem, feedbacks, method, choice)
            probes.append((curve.errors[CHOICES.index(choice)], values))
        return Sensed(curve.errors, probes)

    own = [of_weight[weight.tensor] for weight in weights]
    costs = costs_of(model, own, sense, context)
    return nbytes, costs.tolist()


def _probe(
    layer: Layer,
    problem: Problem | None,
    feedbacks: Sequence[Feedback],
    method: Clustering,
    choice: Choice,
) -> NDArray[Any]:
    """Return a weight as it is when it is coded so."""
    values = layer.weight.load()
    coding, _ = method.code(layer.weight, values, choice)
    if problem is not None:
        grid = Grid(coding, layer.form, values.dtype)
        coding = grid.recode(problem.weights, feedbacks, support_of(problem.weights))
    return coding.decoded(values)
