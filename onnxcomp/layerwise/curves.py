"""What each weight of a model takes and means for its outputs, by every choice of a method."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from onnxcomp.layerwise.portions import portions
from onnxcomp.layerwise.probing import SAMPLES, output_costs, output_errors
from onnxcomp.statistics import held_out_samples, layers, one_thread

if TYPE_CHECKING:
    from collections.abc import Sequence

    from onnxcomp.graph import Model, Weight
    from onnxcomp.layerwise.method import Curve, Method
    from onnxcomp.pipeline import Context
    from onnxcomp.statistics import Layer

OBSERVING_SHARE = 0.6
"""Of the progress: for finding what layers lose; the rest is for what outputs lose by it."""


@dataclass(frozen=True)
class Curves:
    """What several weights take and cost by each choice.

    Args:
        nbytes: Bytes in the file, shape (weights, choices).
        costs: What the outputs of the model lose, likewise: squared error relative to their
            variance; infinite for no choice.
    """

    nbytes: Sequence[Sequence[int]]
    costs: Sequence[Sequence[float]]


def measured(
    model: Model,
    weights: Sequence[Weight],
    method: Method[Any, Any],
    setting: str,
    context: Context,
) -> Curves:
    """Measure weights, unless that was done before with the same setting.

    Where there are samples, the model is run with one layer at a time changed, at a few choices;
    otherwise the layers' own errors stand for what the outputs lose.

    Args:
        model: The model, before anything is changed.
        weights: Weights of it.
        method: What becomes of them.
        setting: All that this depends on besides the model, the samples and the seed.
        context: Samples, or statistics of the model; without either, errors of the weights stand
            for those of the layers.
    """
    of_weight = {layer.weight.tensor: layer for layer in layers(model)}
    own = [of_weight[weight.tensor] for weight in weights]
    name = json.dumps(["curves", setting, [layer.key for layer in own]])
    return Curves(*context.recall(name, lambda: _measure(model, own, method, context)))


def _measure(
    model: Model, own: Sequence[Layer], method: Method[Any, Any], context: Context
) -> tuple[list[list[int]], list[list[float]]]:
    curves: list[Curve] = []
    losses: list[float] = []
    unseen = None if context.samples is None else held_out_samples(context.samples, SAMPLES)
    probed: list[list[float]] = []
    parts = list(portions(own))
    for number, part in enumerate(parts):
        told = context.part(number / len(parts), (number + 1) / len(parts))
        inputs = told.part(0, OBSERVING_SHARE).inputs_of(model, part)
        with one_thread():
            found = [
                method.curve(*pair, has_probes=unseen is not None)
                for pair in zip(part, inputs, strict=True)
            ]
        if unseen is not None:
            changes = [
                [(layer.weight.tensor, values)]
                for layer, curve in zip(part, found, strict=True)
                for _, values in curve.probes
            ]
            told = told.part(OBSERVING_SHARE, 1)
            losses += output_errors(model, changes, unseen, told.progress)
            probed += [[error for error, _ in curve.probes] for curve in found]
        # Their probes have done what they are for.
        curves += [replace(curve, probes=()) for curve in found]
    errors = [[float(error) for error in curve.errors] for curve in curves]
    if losses:
        errors = output_costs(errors, probed, np.reshape(losses, np.shape(probed))).tolist()
    return [[int(size) for size in curve.nbytes] for curve in curves], errors
