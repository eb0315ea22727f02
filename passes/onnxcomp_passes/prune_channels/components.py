"""Elements that belong together become channels: connected components, and choices among them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

if TYPE_CHECKING:
    from collections.abc import Sequence

    from onnxcomp_passes.prune_channels.elements import Elements, Ids, Merge, Preference

FEWEST_UNITS = 4
"""Where a factor has fewer, another is preferred: nobody removes one head of two."""

OTHER: dict[Preference, Preference] = {"outer": "inner", "inner": "outer"}

BESIDE = "lies inside a channel that goes as a whole"


@dataclass(frozen=True, eq=False)
class Components:
    """The channels of a graph.

    Args:
        labels: The channel of each element.
        reasons: Why a channel has to stay, by its label, for those that have to.
    """

    labels: Ids
    reasons: dict[int, str]

    def free(self, ids: Ids) -> Ids:
        """Return the labels of those elements that may go, each once."""
        labels = np.unique(self.labels[ids])
        return np.array([each for each in labels.tolist() if each not in self.reasons], np.int64)


def connect(elements: Elements) -> Components:
    """Find what goes together, and choose of which factor each merged axis loses elements.

    Axes that share a factor agree: the heads of queries, keys, values and outputs. The preferred
    factor is tried first; where nothing of it may go, the other.
    """
    base = _connect(elements, [])
    choosing = _Choosing(elements, base)
    if not elements.merges:
        return base
    first = _connect(elements, choosing.choose(frozenset()))
    gained = choosing.count(first)
    barren = frozenset(group for group in choosing.open if gained[group] == 0)
    if not barren:
        return first
    second = _connect(elements, choosing.choose(barren))
    gained = choosing.count(second)
    better = frozenset(group for group in barren if gained[group] > 0)
    return second if better == barren else _connect(elements, choosing.choose(better))


Choice = tuple["Merge", int]
"""A merged axis, and the factor of which it loses elements."""


def _connect(elements: Elements, choices: Sequence[Choice]) -> Components:
    pairs, frozen = list(elements.pairs), list(elements.frozen)
    for merge, factor in choices:
        grid = merge.grid(factor)
        pairs.append((grid.ravel(), np.repeat(merge.factors[factor], grid.shape[1])))
        frozen += [(each, BESIDE) for each in merge.factors if each is not merge.factors[factor]]
    labels = _labels(elements.size, pairs)
    reasons: dict[int, str] = {}
    for ids, reason in frozen:
        for label in np.unique(labels[ids]).tolist():
            reasons.setdefault(label, reason)
    return Components(labels, reasons)


def _labels(size: int, pairs: Sequence[tuple[Ids, Ids]]) -> Ids:
    rows = np.concatenate([np.zeros(0, np.int64), *(one for one, _ in pairs)])
    columns = np.concatenate([np.zeros(0, np.int64), *(other for _, other in pairs)])
    edges = coo_array((np.ones(len(rows), np.bool_), (rows, columns)), shape=(size, size))
    labels: Ids = connected_components(edges, directed=False)[1].astype(np.int64)
    return labels


class _Choosing:
    """The factors of merged axes, and which of them are of one kind."""

    def __init__(self, elements: Elements, base: Components) -> None:
        self.merges = elements.merges
        self.candidates: list[dict[int, int]] = []
        """For each merge: its factors that may go, and what kind of axis each is."""
        factors = [
            (place, factor, base.free(ids))
            for place, merge in enumerate(self.merges)
            for factor, ids in enumerate(merge.factors)
        ]
        kinds = _linked([labels for _, _, labels in factors])
        self.candidates = [{} for _ in self.merges]
        for (place, factor, labels), kind in zip(factors, kinds, strict=True):
            if len(labels):
                self.candidates[place][factor] = kind
        self.groups = _linked([np.array(list(each.values())) for each in self.candidates])
        self.open = {
            group
            for group, candidates in zip(self.groups, self.candidates, strict=True)
            if len(candidates) > 1
        }

    def choose(self, reversed_groups: frozenset[int]) -> list[Choice]:
        """Choose a factor of each merged axis; some groups of axes take the other one."""
        units: set[int] = set()
        frozen: set[int] = set()
        choices = []
        for place, merge in enumerate(self.merges):
            is_reversed = self.groups[place] in reversed_groups
            prefers = OTHER[merge.prefers] if is_reversed else merge.prefers
            options = {
                factor: kind
                for factor, kind in self.candidates[place].items()
                if kind not in frozen
            }
            agreed = [factor for factor, kind in options.items() if kind in units]
            chosen = agreed[0] if agreed else _preferred(merge, list(options), prefers)
            choices.append((merge, chosen))
            kinds = dict(self.candidates[place])
            if chosen in kinds:
                units.add(kinds.pop(chosen))
            frozen.update(kinds.values())
        return choices

    def count(self, components: Components) -> list[int]:
        """Count what may go of the merged axes of each group."""
        counts = [0] * (max(self.groups, default=-1) + 1)
        for merge, group in zip(self.merges, self.groups, strict=True):
            counts[group] += len(components.free(merge.whole))
        return counts


def _preferred(merge: Merge, factors: list[int], prefers: Preference) -> int:
    order = sorted(factors, reverse=prefers == "inner")
    enough = [each for each in order if len(merge.factors[each]) >= FEWEST_UNITS]
    return next(iter((*enough, *order)), 0)


def _linked(labels: Sequence[Ids]) -> list[int]:
    """Number sets so that those that share a label, directly or through others, are alike."""
    if not labels:
        return []
    owners = np.repeat(np.arange(len(labels)), [len(each) for each in labels])
    everything = np.concatenate(labels).astype(np.int64)
    size = len(labels) + int(everything.max(initial=-1)) + 1
    found = _labels(size, [(owners, len(labels) + everything)])
    numbers: list[int] = np.unique(found[: len(labels)], return_inverse=True)[1].tolist()
    return numbers
