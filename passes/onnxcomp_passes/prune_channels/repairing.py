"""Weights for the inputs that are left: least squares on them, and the mean of the output."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from onnxcomp.layerwise import repair_layers
from onnxcomp.recovery import (
    Problem,
    add_bias,
    best_repair,
    bias_bytes,
    refit_on_support,
    takes_bias,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from numpy.typing import NDArray

    from onnxcomp.graph import Model
    from onnxcomp.pipeline import Context
    from onnxcomp.statistics import InputStatistics, Layer

    Floats = NDArray[np.float64]
    Support = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Repaired:
    """Weights that make up for inputs that are gone.

    Args:
        weights: Zero where inputs are gone, shape (groups, outputs, inputs).
        shift: What is added to each output, shape (groups, outputs).
        how: What was done, for the verdict; empty if nothing helped.
    """

    weights: Floats
    shift: Floats
    how: str


@dataclass(frozen=True)
class Repair:
    """What became of a repaired weight.

    Args:
        how: What was done.
        added: Bytes of biases that there were not before.
    """

    how: str
    added: int


def repaired(
    layer: Layer, values: NDArray[Any], inputs: InputStatistics, support: Support
) -> Repaired:
    """Fit a layer's weights to the inputs that are left.

    Tried are the weights as they are, those that are best for what the original's inputs are, and
    those that are best for what the layers before now give, each with its mean corrected and
    without. Which is kept is measured on held-out columns, if there are any.

    Args:
        layer: The layer.
        values: The original's weight.
        inputs: Statistics of what the layer multiplies, and perhaps of what the original does.
        support: Which inputs are left, shape (groups, inputs).
    """
    moments = inputs.fit
    assert moments is not None  # noqa: S101 - the caller has looked
    weights = layer.form.to_matrices(values)
    shifts = all(takes_bias(use) for use in layer.uses)
    problem = Problem.of(weights, moments, shifts=shifts)
    made = (((found, how), found) for found, how in _candidates(problem, support))
    (found, how), shift = best_repair(problem, made, inputs.held_out)
    words = [how, "mean corrected"] if shift.any() else [how]
    return Repaired(found, shift, ", ".join(each for each in words if each))


def _candidates(problem: Problem, support: Support) -> Iterator[tuple[Floats, str]]:
    yield problem.weights * support[:, None, :], ""
    targets = [problem.weights, problem.target()] if problem.is_paired else [problem.weights]
    if support.all():
        targets = targets[1:]
    for target in targets:
        fitted = [
            refit_on_support(each, np.broadcast_to(left, each.shape), damped)
            for each, left, damped in zip(target, support, problem.damped, strict=True)
        ]
        yield np.stack(fitted), "refitted"


def repair_all(
    model: Model, original: Model, supports: Mapping[int, Support], context: Context
) -> dict[int, Repair]:
    """Repair layers of a model that has dead channels.

    Args:
        model: The model; it is changed.
        original: A copy of it from before channels died.
        supports: Which inputs are left of each layer that is to be repaired, shape (groups,
            inputs); by the identity of its weight in the model.
        context: Samples, or statistics of the original; without either, nothing is repaired.

    Returns:
        What was done, by the same identities, where something helped.
    """
    done: dict[int, Repair] = {}

    def repair(layer: Layer, twin: Layer, inputs: InputStatistics) -> None:
        if inputs.fit is None:
            return
        key = id(layer.weight.tensor)
        found = repaired(layer, twin.weight.load(), inputs, supports[key])
        if found.how:
            done[key] = put(layer, found)

    repair_layers(
        model,
        original,
        repair,
        context=context,
        sequential=True,
        concerns=lambda weight: id(weight.tensor) in supports,
    )
    return done


def put(layer: Layer, found: Repaired) -> Repair:
    """Give a layer other weights and what is to be added to its outputs."""
    dtype, added = layer.weight.dtype, 0
    layer.weight.tensor.values = layer.form.to_tensor(found.weights).astype(dtype)
    if found.shift.any():
        added = sum(bias_bytes(use, dtype) for use in layer.uses)
        for use in layer.uses:
            add_bias(use, found.shift, dtype)
    return Repair(found.how, added)
