"""How many channels of each group stay: by a ratio, a share of the operations, or of the time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from onnxcomp_passes.prune_channels.allocating import (
    cheapest_within,
    uniform,
    uniform_within,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from onnxcomp_passes.prune_channels.allocating import Measure
    from onnxcomp_passes.prune_channels.consumers import Channels
    from onnxcomp_passes.prune_channels.costs import Curve
    from onnxcomp_passes.prune_channels.groups import Group
    from onnxcomp_passes.prune_channels.macs import Work


@dataclass(frozen=True, eq=False)
class Choosing:
    """Everything that a choice of channels is made from.

    Args:
        groups: The groups that may lose channels.
        options: How many of each may stay, most first.
        curves: In which order the channels of each go, and what that costs.
        importances: What a unit of the cost of each group means for the model.
        work: Operations of the model.
        is_uniform: Whether every group loses the same share.
    """

    groups: Sequence[Group]
    options: Sequence[Sequence[int]]
    curves: Sequence[Curve]
    importances: Sequence[float]
    work: Work
    is_uniform: bool

    def by_ratio(self, ratio: float) -> list[int]:
        """Return how many channels of each group stay when a share of them goes.

        Raises:
            ValueError: Not so many may go; the message says how many.
        """
        if self.is_uniform:
            return uniform(self.options, ratio)
        total = sum(group.count for group in self.groups)
        counts = self._within(lambda removed: total - removed.sum(axis=1), (1 - ratio) * total)
        if counts is None:
            most = 1 - sum(each[-1] for each in self.options) / max(total, 1)
            raise ValueError(f"the most is {_rounded(most, -1)}")
        return counts

    def by_macs(self, share: float) -> list[int]:
        """Return how many channels of each group stay so that a share of the operations is left.

        Raises:
            ValueError: So few cannot be had; the message says how few can.
        """
        counts = self._within(self.work.total, share * self.whole)
        if counts is None:
            raise ValueError(f"the least is {self.least}")
        return counts

    @property
    def least(self) -> float:
        """The least share of the operations that can be left, in three digits."""
        return _rounded(self.macs([each[-1] for each in self.options]), 1)

    @property
    def whole(self) -> float:
        """The operations of the whole model."""
        return float(self.work.total(np.zeros(len(self.groups))))

    def macs(self, counts: Sequence[int]) -> float:
        """Return the share of the operations that is left when so many channels stay."""
        removed = [group.count - kept for group, kept in zip(self.groups, counts, strict=True)]
        return float(self.work.total(np.array(removed))) / (self.whole or 1.0)

    def removed(self, counts: Sequence[int]) -> list[Channels]:
        """Return which channels of each group go when so many stay."""
        every = zip(self.groups, self.curves, counts, strict=True)
        return [curve.order[: group.count - count] for group, curve, count in every]

    def _within(self, measure: Measure, goal: float) -> list[int] | None:
        if self.is_uniform:
            return uniform_within(self.options, measure, goal)
        costs = [
            [importance * float(curve.costs[each[0] - kept]) for kept in each]
            for each, curve, importance in zip(
                self.options, self.curves, self.importances, strict=True
            )
        ]
        return cheapest_within(self.options, costs, measure, goal)


def _rounded(share: float, direction: int) -> float:
    """Return a share in three digits, rounded so that it can be reached."""
    scaled = share * 1000
    return float(np.ceil(scaled) if direction > 0 else np.floor(scaled)) / 1000
