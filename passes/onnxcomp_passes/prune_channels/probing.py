"""What the loss of channels means for the outputs of the model, measured."""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, Any

import numpy as np

from onnxcomp.layerwise import SAMPLES, output_errors
from onnxcomp.recovery import refit_on_support
from onnxcomp.statistics import held_out_samples, one_thread
from onnxcomp_passes.prune_channels.costs import variance
from onnxcomp_passes.prune_channels.observing import problem_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from onnxcomp.graph import Constant, Model
    from onnxcomp.pipeline import Context
    from onnxcomp.statistics import InputStatistics
    from onnxcomp_passes.prune_channels.consumers import Channels, Consumer
    from onnxcomp_passes.prune_channels.observing import Observed, Outputs

    Change = list[tuple[Constant, NDArray[Any]]]


def importances(
    model: Model,
    observed: Sequence[Observed],
    removed: Sequence[Channels],
    dead: Outputs,
    context: Context,
) -> list[float]:
    """Measure by how much the outputs suffer for each unit of cost of a group.

    One group after the other loses channels, and what multiplies them is refitted.

    Args:
        model: The model.
        observed: Its groups, and statistics of what multiplies them.
        removed: Which channels of each go.
        dead: Outputs that do not matter.
        context: Samples.

    Returns:
        The squared error of the outputs relative to their variance over the squared error of
        what multiplies the channels, likewise; a group that no sample needs counts like the
        median one.
    """
    assert context.samples is not None  # noqa: S101 - the caller has looked
    changes, costs = [], []
    with one_thread():
        for each, gone in zip(observed, removed, strict=True):
            change, cost = _without(each, gone, dead)
            changes.append(change)
            costs.append(cost)
    unseen = held_out_samples(context.samples, SAMPLES)
    losses = output_errors(model, changes, unseen, context.progress)
    pairs = list(zip(losses, costs, strict=True))
    ratios = [loss / cost for loss, cost in pairs if 0 < loss < inf and 0 < cost < inf]
    typical = float(np.median(ratios)) if ratios else 1.0
    return [loss / cost if loss > 0 and cost > 0 else typical for loss, cost in pairs]


def _without(observed: Observed, removed: Channels, dead: Outputs) -> tuple[Change, float]:
    """Return constants without channels, and what that costs those that multiply them."""
    change: Change = []
    cost = 0.0
    for consumer, inputs in observed.needs:
        if consumer.layer is None or inputs.fit is None:
            continue
        values, lost = _refitted(consumer, inputs, removed, dead)
        change.append((consumer.layer.weight.tensor, values))
        cost += lost
    return change, cost


def _refitted(
    consumer: Consumer, inputs: InputStatistics, removed: Channels, dead: Outputs
) -> tuple[NDArray[Any], float]:
    """Return a constant without channels, where outputs matter, and what that costs."""
    layer = consumer.layer
    assert layer is not None  # noqa: S101 - the caller has looked
    # Not centred: there is nothing to correct the mean with.
    problem = problem_of(layer, inputs, dead, shifts=False)
    found = []
    for weights, damped, columns in zip(
        problem.weights, problem.damped, consumer.columns, strict=True
    ):
        support = np.ones(weights.shape, bool)
        support[:, columns[removed].reshape(-1)] = False
        found.append(refit_on_support(weights, support, damped))
    matrices = np.stack(found)
    lost = problem.error(matrices) * variance(problem) / variance(problem_of(layer, inputs, dead))
    values = layer.weight.load()
    gone = dead.get(id(layer.weight.tensor))
    if gone is not None:
        matrices = np.where(gone[:, :, None], layer.form.to_matrices(values), matrices)
    return layer.form.to_tensor(matrices).astype(values.dtype), lost
