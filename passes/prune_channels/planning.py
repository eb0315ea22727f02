"""Which channels go: the order in each group, what each costs, and how many fit a budget."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from onnxcomp.recovery import Problem, takes_bias
from onnxcomp.statistics import InputStatistics, layers, one_thread, walk, watch_inputs
from passes.prune_channels.consumers import consumers, parts_that, squares
from passes.prune_channels.costs import (
    Fixed,
    SecondOrder,
    activation,
    magnitude,
    removal_curve,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from onnxcomp.graph import Model
    from onnxcomp.pipeline import Context
    from onnxcomp.statistics import Layer
    from passes.prune_channels.consumers import Consumer
    from passes.prune_channels.costs import Curve, Toll
    from passes.prune_channels.groups import Group

Criterion = Literal["magnitude", "activation", "second-order"]


@dataclass(frozen=True, eq=False)
class Observed:
    """What multiplies a group's channels, and what is known of that.

    Args:
        group: The group.
        needs: What multiplies its channels, each with statistics of what it multiplies.
    """

    group: Group
    needs: tuple[tuple[Consumer, InputStatistics], ...]

    def curve(self, criterion: Criterion, most: int) -> Curve:
        """Return in which order up to so many channels go, and what that costs."""
        tolls: list[Toll] = [_toll(*each, criterion) for each in self.needs]
        if criterion == "magnitude":
            tolls += [magnitude(squares(part)) for part in parts_that("produces", self.group)]
        return removal_curve(tolls, self.group.count, most)


def observe_groups(model: Model, groups: Sequence[Group], context: Context) -> list[Observed]:
    """Observe what multiplies the channels of groups.

    Args:
        model: The model.
        groups: Its groups.
        context: Samples, or statistics of the model; without either nothing is known.
    """
    by_tensor = {id(layer.weight.tensor): layer for layer in layers(model)}
    found = [consumers(group, by_tensor) for group in groups]
    known = [each.layer for needs in found for each in needs if each.layer is not None]
    inputs = _inputs(model, list(dict.fromkeys(known)), context)
    return [
        Observed(
            group,
            tuple((each, inputs.get(id(each.layer), InputStatistics())) for each in needs),
        )
        for group, needs in zip(groups, found, strict=True)
    ]


def curves(
    observed: Sequence[Observed],
    criterion: Criterion,
    lowest: Sequence[int],
    context: Context,
) -> list[Curve]:
    """Return the order and the costs of each group.

    Args:
        observed: The groups.
        criterion: What is taken for the cost.
        lowest: How many channels of each stay at least.
        context: Told the progress.
    """
    found = []
    with one_thread():
        for place, (each, least) in enumerate(zip(observed, lowest, strict=True)):
            found.append(each.curve(criterion, each.group.count - least))
            context.progress((place + 1) / len(observed))
    return found


def _toll(consumer: Consumer, inputs: InputStatistics, criterion: Criterion) -> Toll:
    if criterion == "magnitude" or consumer.layer is None or inputs.fit is None:
        return magnitude(consumer.squares())
    problem = problem_of(consumer.layer, inputs)
    if criterion == "activation":
        return activation(problem, consumer.columns)
    try:
        return SecondOrder(problem, consumer.columns)
    except np.linalg.LinAlgError:
        # Rounding is all that is left of columns that hardly vary beside their mean.
        return Fixed(activation(problem, consumer.columns).each)


def problem_of(layer: Layer, inputs: InputStatistics, *, shifts: bool = True) -> Problem:
    """Return a layer as a least-squares problem on what was observed of it."""
    moments = inputs.fit
    assert moments is not None  # noqa: S101 - the caller has looked
    weights = layer.form.to_matrices(layer.weight.load())
    may_shift = shifts and all(takes_bias(use) for use in layer.uses)
    return Problem.of(weights, moments, shifts=may_shift)


def _inputs(
    model: Model, known: Sequence[Layer], context: Context
) -> Mapping[int, InputStatistics]:
    if context.samples is not None:
        watches, inputs = watch_inputs(known)
        walk((model,), watches, context.samples, context.progress)
        return {id(layer): each for layer, each in zip(known, inputs, strict=True)}
    if context.statistics is None:
        return {}
    statistics = context.statistics
    return {id(layer): statistics.of(layer) for layer in known}
