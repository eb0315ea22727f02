"""What is known of what multiplies the channels of groups, and what their removal costs it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from onnxcomp.recovery import Problem, takes_bias
from onnxcomp.statistics import InputStatistics, layers
from onnxcomp_passes.prune_channels.consumers import consumers, parts_that, squares
from onnxcomp_passes.prune_channels.costs import (
    SecondOrder,
    activation,
    magnitude,
    removal_curve,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from onnxcomp.graph import Model
    from onnxcomp.pipeline import Context
    from onnxcomp.statistics import Layer
    from onnxcomp_passes.prune_channels.consumers import Consumer
    from onnxcomp_passes.prune_channels.costs import Curve, Toll
    from onnxcomp_passes.prune_channels.groups import Group

Criterion = Literal["magnitude", "activation", "second-order"]

Outputs = Mapping[int, NDArray[np.bool_]]
"""Outputs of layers that do not matter, as they go; by the identity of the weight."""


@dataclass(frozen=True, eq=False)
class Observed:
    """What multiplies a group's channels, and what is known of that.

    Args:
        group: The group.
        needs: What multiplies its channels, each with statistics of what it multiplies.
    """

    group: Group
    needs: tuple[tuple[Consumer, InputStatistics], ...]

    def curve(self, criterion: Criterion, most: int, dead: Outputs) -> Curve:
        """Return in which order up to so many channels go, and what that costs."""
        tolls: list[Toll] = [_toll(*each, criterion, dead) for each in self.needs]
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
    known = list(dict.fromkeys(known))
    inputs = dict(zip(map(id, known), context.inputs_of(model, known), strict=True))
    return [
        Observed(
            group,
            tuple((each, inputs.get(id(each.layer), InputStatistics())) for each in needs),
        )
        for group, needs in zip(groups, found, strict=True)
    ]


def _toll(
    consumer: Consumer, inputs: InputStatistics, criterion: Criterion, dead: Outputs
) -> Toll:
    if criterion == "magnitude" or consumer.layer is None or inputs.fit is None:
        return magnitude(consumer.squares())
    problem = problem_of(consumer.layer, inputs, dead)
    if criterion == "activation":
        return activation(problem, consumer.columns)
    try:
        return SecondOrder(problem, consumer.columns)
    except np.linalg.LinAlgError:
        # Rounding is all that is left of columns that hardly vary beside their mean.
        return activation(problem, consumer.columns)


def problem_of(
    layer: Layer, inputs: InputStatistics, dead: Outputs, *, shifts: bool = True
) -> Problem:
    """Return a layer as a least-squares problem on what was observed of it."""
    moments = inputs.fit
    assert moments is not None  # noqa: S101 - the caller has looked
    weights = layer.form.to_matrices(layer.weight.load())
    gone = dead.get(id(layer.weight.tensor))
    if gone is not None:
        weights = np.where(gone[:, :, None], 0, weights)
    may_shift = shifts and all(takes_bias(use) for use in layer.uses)
    return Problem.of(weights, moments, shifts=may_shift)
