"""One choice for each of many things, so that they fit a budget and cost as little as can be."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

BUCKETS = 20_000
"""Steps that a budget is cut into."""


@dataclass(frozen=True)
class Option:
    """One way to treat a thing.

    Args:
        nbytes: What it takes of the budget.
        cost: What it costs besides, in any unit that all options share; costs add up. What costs
            infinitely much, or nobody knows how much, is taken only where nothing else fits.
    """

    nbytes: int
    cost: float


def allocate(options: Sequence[Sequence[Option]], budget: int) -> list[int] | None:
    """Choose an option for each thing by dynamic programming over the bytes.

    Bytes are rounded up to steps of the budget, so that the choice always fits; it is the best
    one up to that rounding (the multiple-choice knapsack: Kellerer et al., "Knapsack problems",
    2004).

    Args:
        options: For each thing what can be chosen.
        budget: Most bytes of all together.

    Returns:
        The index of the option for each thing; None if no choice fits.
    """
    least = [min(option.nbytes for option in each) for each in options]
    spare = budget - sum(least)
    if spare < 0:
        return None
    step = max(1, -(-spare // BUCKETS))
    # Infinity itself is kept for what does not fit.
    most = sys.float_info.max / (len(options) + 1)
    costs = np.zeros(spare // step + 1)
    choices = []
    for each, floor in zip(options, least, strict=True):
        tried = np.full((len(each), len(costs)), np.inf)
        for place, option in enumerate(each):
            taken = -(-(option.nbytes - floor) // step)
            if taken < len(costs):
                tried[place, taken:] = costs[: len(costs) - taken] + (min(most, option.cost))
        choices.append(np.argmin(tried, axis=0))
        costs = tried.min(axis=0)
    return _walk_back(options, choices, least, step)


def _walk_back(
    options: Sequence[Sequence[Option]],
    choices: Sequence[np.ndarray],
    least: Sequence[int],
    step: int,
) -> list[int]:
    place = len(choices[0]) - 1 if choices else 0
    chosen: list[int] = []
    for each, choice, floor in zip(
        reversed(options), reversed(choices), reversed(least), strict=True
    ):
        chosen.append(int(choice[place]))
        place -= -(-(each[chosen[-1]].nbytes - floor) // step)
    return chosen[::-1]
