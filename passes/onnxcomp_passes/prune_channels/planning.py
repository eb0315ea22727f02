"""Plans of which channels go, each better than the one before."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from onnxcomp.statistics import layers, one_thread
from onnxcomp_passes.prune_channels.choosing import Choosing
from onnxcomp_passes.prune_channels.consumers import dead_outputs
from onnxcomp_passes.prune_channels.probing import importances

if TYPE_CHECKING:
    from collections.abc import Sequence

    from onnxcomp.graph import Model
    from onnxcomp.pipeline import Context
    from onnxcomp_passes.prune_channels.consumers import Channels
    from onnxcomp_passes.prune_channels.costs import Curve
    from onnxcomp_passes.prune_channels.macs import Work
    from onnxcomp_passes.prune_channels.observing import Criterion, Observed, Outputs

PROBED = 0.4
"""Share of the channels of a group that goes while it is measured what they mean, at first."""


@dataclass(frozen=True, eq=False)
class Planner:
    """What plans are made from.

    Args:
        model: The model.
        observed: Its groups, and what is known of what multiplies them.
        options: How many channels of each group may stay, most first.
        criterion: What is taken for the cost of channels.
        work: Operations of the model.
        is_uniform: Whether every group loses the same share.
    """

    model: Model
    observed: Sequence[Observed]
    options: Sequence[Sequence[int]]
    criterion: Criterion
    work: Work
    is_uniform: bool

    def plan(self, before: Sequence[Channels] | None, context: Context) -> Choosing:
        """Rank the channels of each group, and weigh the groups.

        Args:
            before: Channels of each group that go by an earlier plan: what made these does not
                matter any more, and groups are weighed by the loss of so many.
            context: Samples, if there are any, on which it is measured what groups mean.
        """
        groups = [each.group for each in self.observed]
        dead: Outputs = {}
        if before is not None:
            by_tensor = {id(layer.weight.tensor): layer for layer in layers(self.model)}
            dead = dead_outputs(groups, before, by_tensor)
        curves = []
        with one_thread():
            for each, kept in zip(self.observed, self.options, strict=True):
                curves.append(each.curve(self.criterion, each.group.count - kept[-1], dead))
                context.progress(len(curves) / len(groups) / 2)
        weights = [1.0] * len(groups)
        if context.samples is not None and not self.is_uniform:
            weights = self._importances(curves, before, dead, context.part(0.5, 1))
        return Choosing(groups, self.options, curves, weights, self.work, self.is_uniform)

    def _importances(
        self,
        curves: Sequence[Curve],
        before: Sequence[Channels] | None,
        dead: Outputs,
        context: Context,
    ) -> list[float]:
        """Return what a unit of the cost of each group means; those of a plan by its channels."""
        probed = self._probed(curves, before)
        gone = [[each.tolist() for each in channels] for channels in (probed, before or ())]
        name = json.dumps(["importances of groups", *gone])
        found: list[float] = context.recall(
            name, lambda: importances(self.model, self.observed, probed, dead, context)
        )
        return found

    def _probed(
        self, curves: Sequence[Curve], before: Sequence[Channels] | None
    ) -> list[Channels]:
        """Return the channels by the loss of which groups are weighed."""
        if before is None:
            counts = [round(PROBED * each.group.count) for each in self.observed]
        else:
            # A group that loses nothing yet is tried at the next step.
            steps = [kept[0] - kept[min(1, len(kept) - 1)] for kept in self.options]
            counts = [max(len(gone), step) for gone, step in zip(before, steps, strict=True)]
        return [curve.order[:count] for curve, count in zip(curves, counts, strict=True)]
