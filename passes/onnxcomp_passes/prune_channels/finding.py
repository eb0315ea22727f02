"""Finding the groups of channels of a model."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

import numpy as np

from onnxcomp.graph import Constant
from onnxcomp_passes.prune_channels.components import connect
from onnxcomp_passes.prune_channels.elements import Elements
from onnxcomp_passes.prune_channels.groups import Count, Frozen, Group, Part
from onnxcomp_passes.prune_channels.shapes import measure
from onnxcomp_passes.prune_channels.tracing import Tracing, fixed_tensors, read_values

if TYPE_CHECKING:
    from collections.abc import Iterator

    import onnx_graphsurgeon as gs
    from numpy.typing import NDArray

    from onnxcomp.graph import Model
    from onnxcomp.runtime import Feed
    from onnxcomp_passes.prune_channels.components import Components
    from onnxcomp_passes.prune_channels.elements import Ids

Members = tuple[tuple[int, int, int], ...]
"""What a channel takes: tensor and axis, as numbers, and how many elements."""


def find_groups(model: Model, feed: Feed | None = None) -> tuple[list[Group], list[Frozen]]:
    """Find the channels that may be removed, in groups, and why all others have to stay.

    Args:
        model: The model; not changed.
        feed: One sample, which tells the shapes of all tensors; made up where there is none.
    """
    measured = measure(model, feed, read_values(model, fixed_tensors(model)))
    elements = Elements(measured.shapes)
    Tracing(model, elements, measured.values).run()
    components = connect(elements)
    groups = _Grouping(elements, components).groups()
    return groups, list(_frozen(elements, components, groups))


class _Grouping:
    """Channels that take elements of the same axes make a group."""

    def __init__(self, elements: Elements, components: Components) -> None:
        self.elements = elements
        self.labels = components.labels
        self.axes: list[tuple[gs.Tensor, int, Ids]] = [
            (tensor, axis, ids)
            for tensor, axes in elements.tensors.values()
            for axis, ids in enumerate(axes)
        ]
        members: dict[int, list[tuple[int, int, int]]] = defaultdict(list)
        for place, (_, axis, ids) in enumerate(self.axes):
            found, widths = np.unique(self.labels[ids], return_counts=True)
            for label, width in zip(found.tolist(), widths.tolist(), strict=True):
                if label not in components.reasons:
                    members[label].append((place, axis, width))
        kinds: dict[Members, list[int]] = defaultdict(list)
        for label, member in members.items():
            kinds[tuple(member)].append(label)
        self.kinds = {kind: each for kind, each in kinds.items() if len(each) > 1}
        self.channel = np.full(int(self.labels.max(initial=-1)) + 1, -1)
        self.kind = np.full_like(self.channel, -1)

    def groups(self) -> list[Group]:
        """Return the groups, in the order of their first tensors."""
        for number, (kind, found) in enumerate(self.kinds.items()):
            first = self.axes[kind[0][0]][2]
            present = self.labels[first]
            order = {int(label): place for place, label in reversed(list(enumerate(present)))}
            labels = np.array(sorted(found, key=order.__getitem__))
            self.channel[labels] = np.arange(len(labels))
            self.kind[labels] = number
        counts = self._counts()
        return [
            self._group(kind, len(labels), number, tuple(counts[number]))
            for number, (kind, labels) in enumerate(self.kinds.items())
        ]

    def _group(self, kind: Members, count: int, number: int, counts: tuple[Count, ...]) -> Group:
        parts = []
        for place, axis, width in kind:
            tensor, _, ids = self.axes[place]
            labels = self.labels[ids]
            places = np.flatnonzero(self.kind[labels] == number)
            order = np.argsort(self.channel[labels[places]], kind="stable")
            uses = tuple(self.elements.uses.get((id(tensor), axis), ()))
            parts.append(Part(tensor, axis, places[order].reshape(count, width), uses))
        weights = tuple(each for each in parts if isinstance(each.tensor, Constant))
        tensors = tuple(each for each in parts if not isinstance(each.tensor, Constant))
        return Group(weights, tensors, counts)

    def _counts(self) -> dict[int, list[Count]]:
        """Return by how much integers fall with the channels of each group."""
        counts: dict[int, list[Count]] = defaultdict(list)
        sizes = [len(labels) for labels in self.kinds.values()]
        for each in self.elements.counted:
            labels = self.labels[each.ids]
            for number in np.unique(self.kind[labels]).tolist():
                if number >= 0:
                    inside = labels[self.kind[labels] == number]
                    shares: NDArray[np.int64] = np.bincount(
                        self.channel[inside], minlength=sizes[number]
                    )
                    counts[number].append(Count(each.integers, each.index, each.value, shares))
        return counts


def _frozen(elements: Elements, components: Components, groups: list[Group]) -> Iterator[Frozen]:
    """Yield the axes of which something has to stay, and why."""
    free: dict[tuple[int, int], int] = defaultdict(int)
    for group in groups:
        for part in (*group.weights, *group.tensors):
            free[id(part.tensor), part.axis] += part.places.size
    for tensor, axes in elements.tensors.values():
        for axis, ids in enumerate(axes):
            if len(ids) > 1 and free[id(tensor), axis] < len(ids):
                reasons = (
                    components.reasons.get(each) for each in components.labels[ids].tolist()
                )
                reason = next(filter(None, reasons), "its elements only go together")
                yield Frozen(str(tensor.name), axis, reason)
