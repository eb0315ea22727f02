"""How many channels of each group stay."""

from __future__ import annotations

from math import ceil, gcd
from typing import TYPE_CHECKING

import numpy as np

from onnxcomp.graph.operators import CONVOLUTIONS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from onnxcomp_passes.prune_channels.groups import Group

    Integers = NDArray[np.int64]
    Measure = Callable[[Integers], NDArray[np.float64]]
    """Returns what is left of a model, shape (n,), when so many channels of each group are gone,
    shape (n, groups)."""

WIDE, NARROW = 64, 16
"""Convolutions of so many channels keep multiples of 16, and of 8; ONNX Runtime's blocks of
channels are as wide."""

WIDE_PRODUCT = 128
"""Matrix products of so many channels keep multiples of 16."""

BISECTIONS = 20
"""Ratios that are tried; a group has fewer channels than they tell apart."""


def counts_to_keep(group: Group, round_to: int | None, least: float) -> list[int]:
    """Return how many channels of a group may stay, most first.

    Args:
        group: The group.
        round_to: What counts are multiples of, all channels apart; None for what suits the layer.
        least: Share of the channels that has to stay.
    """
    count = group.count
    step = round_to or _step(group)
    lowest = max(ceil(least * count), 1)
    return [count, *(each for each in range(count - 1, lowest - 1, -1) if each % step == 0)]


def _step(group: Group) -> int:
    """Return what counts of a group are multiples of, so that its layers have round widths."""
    widths = [
        part.places.shape[1]
        for part in group.weights
        if any(use.node.op in CONVOLUTIONS for use in part.uses)
    ]
    if not widths:
        return 16 if group.count >= WIDE_PRODUCT else 1
    channels = group.count * max(widths)
    step = 16 if channels >= WIDE else 8 if channels >= NARROW else 4
    return step // gcd(step, max(widths))


def uniform(options: Sequence[Sequence[int]], ratio: float) -> list[int]:
    """Return counts that leave out the same share of every group, as nearly as can be."""
    return [min(each, key=lambda kept: abs(kept - (1 - ratio) * each[0])) for each in options]


def uniform_within(
    options: Sequence[Sequence[int]], measure: Measure, goal: float
) -> list[int] | None:
    """Return the most that the same share of every group leaves within a goal; None if none does.

    Args:
        options: How many channels of each group may stay, most first.
        measure: What is left of the model.
        goal: How much may be left.
    """
    best = uniform(options, 1.0)
    if _measured(options, best, measure) > goal:
        return None
    low, high = 0.0, 1.0
    for _ in range(BISECTIONS):
        ratio = (low + high) / 2
        counts = uniform(options, ratio)
        if _measured(options, counts, measure) <= goal:
            best, high = counts, ratio
        else:
            low = ratio
    return best


def cheapest_within(
    options: Sequence[Sequence[int]],
    costs: Sequence[Sequence[float]],
    measure: Measure,
    goal: float,
) -> list[int] | None:
    """Return counts that cost little and leave no more than a goal; None if none do.

    Step by step the group loses channels that does so at the least cost for what it saves; what
    turns out not to be needed is given back.

    Args:
        options: How many channels of each group may stay, most first.
        costs: What each of these costs.
        measure: What is left of the model.
        goal: How much may be left.
    """
    places = [0] * len(options)
    moves = [(g, place) for g, each in enumerate(options) for place in range(1, len(each))]
    counts = np.array([each[0] for each in options], np.int64)
    left = float(measure(np.zeros((1, len(options)), np.int64))[0])
    while left > goal:
        possible = [(group, place) for group, place in moves if place > places[group]]
        found = _after(options, counts, possible, measure)
        saved = left - found
        spent = np.array([costs[g][place] - costs[g][places[g]] for g, place in possible])
        useful = np.flatnonzero(saved > 0)
        if not useful.size:
            return None
        # What costs nothing is taken by what it saves.
        rates = np.maximum(spent[useful], np.finfo(float).tiny) / saved[useful]
        chosen = useful[np.argmin(rates)]
        group, places[group] = possible[chosen][0], possible[chosen][1]
        counts[group], left = options[group][places[group]], float(found[chosen])
    _give_back(options, costs, measure, goal, places)
    return [each[place] for each, place in zip(options, places, strict=True)]


def _give_back(
    options: Sequence[Sequence[int]],
    costs: Sequence[Sequence[float]],
    measure: Measure,
    goal: float,
    places: list[int],
) -> None:
    """Let groups have channels back as long as no more than the goal is left."""
    while True:
        counts = np.array([each[place] for each, place in zip(options, places, strict=True)])
        possible = [
            (group, place)
            for group, last in enumerate(places)
            for place in range(last)
            if costs[group][place] < costs[group][last]
        ]
        fits = np.flatnonzero(_after(options, counts, possible, measure) <= goal)
        if not fits.size:
            return
        gains = [
            costs[group][places[group]] - costs[group][place]
            for group, place in (possible[each] for each in fits)
        ]
        group, place = possible[fits[int(np.argmax(gains))]]
        places[group] = place


def _after(
    options: Sequence[Sequence[int]],
    counts: Integers,
    moves: Sequence[tuple[int, int]],
    measure: Measure,
) -> NDArray[np.float64]:
    """Return what is left after each of several moves, shape (moves,)."""
    removed = np.tile(np.array([each[0] for each in options]) - counts, (len(moves), 1))
    for row, (group, place) in enumerate(moves):
        removed[row, group] = options[group][0] - options[group][place]
    return measure(removed)


def _measured(options: Sequence[Sequence[int]], counts: Sequence[int], measure: Measure) -> float:
    removed = [each[0] - kept for each, kept in zip(options, counts, strict=True)]
    return float(measure(np.array([removed], np.int64))[0])
