"""Where integers that say sizes and positions come from: literals, sizes of tensors, arithmetic.

Graphs compute shapes of tensors from numbers in constants and from the shapes of other tensors.
Each element of such an integer tensor is followed from where it is made to the operator that takes
it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from onnxcomp.graph import Constant
from onnxcomp_passes.prune_channels.elements import Counted
from onnxcomp_passes.prune_channels.groups import Integers
from onnxcomp_passes.prune_channels.shapes import is_standard

if TYPE_CHECKING:
    from collections.abc import Callable

    import onnx_graphsurgeon as gs

    from onnxcomp_passes.prune_channels.elements import Elements, Ids

MOST_INTEGERS = 4096
"""Tensors with more are no shapes, nor tables of positions that are worth following."""

COMPUTED = "its size is computed"


@dataclass(frozen=True, eq=False)
class Literal:
    """An integer that stands in a constant or an attribute.

    Args:
        integers: Where.
        index: Which of them.
        value: What it is.
    """

    integers: Integers
    index: int
    value: int


@dataclass(frozen=True, eq=False)
class Size:
    """An integer that is the size of an axis.

    Args:
        ids: The axis.
    """

    ids: Ids

    @property
    def value(self) -> int:
        """The size when the shapes were measured."""
        return len(self.ids)


Source = Literal | Size | None
"""None is what is computed otherwise."""


@dataclass(eq=False)
class Provenance:
    """Follows integers through a graph, operator by operator.

    Args:
        elements: What is known of elements; it is told what has to stay.
        unsure: Identities of constants that may be others in a run.
    """

    elements: Elements
    unsure: frozenset[int]
    _computed: dict[int, tuple[tuple[int, ...], list[Source]]] = field(default_factory=dict)
    _owners: dict[tuple[Integers, int], Ids] = field(default_factory=dict)
    _given: dict[tuple[int, int], list[Source]] = field(default_factory=dict)
    _shared: set[tuple[Integers, int]] = field(default_factory=set)

    def read(self, node: gs.Node, place: int) -> list[Source] | None:
        """Return where each integer comes from that an operator takes at an input.

        None where nothing is known of them.
        """
        tensor = node.inputs[place]
        if id(tensor) in self._computed:
            return self._computed[id(tensor)][1]
        key = id(node), place
        is_new = key not in self._given and id(tensor) not in self.unsure
        if is_new and isinstance(tensor, Constant) and _may_be_sizes(tensor):
            values = tuple(int(each) for each in tensor.values.ravel())
            integers = Integers(node, place, values)
            self._given[key] = [Literal(integers, *each) for each in enumerate(values)]
        return self._given.get(key)

    def follow(self, node: gs.Node, taken: set[int]) -> None:
        """Follow integers through an operator.

        Args:
            node: The operator.
            taken: Inputs whose integers its rule has seen to.
        """
        if node.op == "Shape":
            self._shape(node)
            return
        transfer = TRANSFERS.get(node.op) if is_standard(node) else None
        places = [place for place, each in enumerate(node.inputs) if each.name]
        known = {place: self.read(node, place) for place in places}
        is_whole = len(known) == len(node.inputs) and None not in known.values()
        if transfer is not None and known and is_whole:
            shape = self._shape_of(node.outputs[0])
            given = [self._laid_out(node, place) for place in known]
            found = None if shape is None else transfer(node, given)
            if found is not None and shape is not None and found.size == np.prod(shape):
                self._computed[id(node.outputs[0])] = shape, found.ravel().tolist()
                return
        for place in known:
            if place not in taken:
                self.escape(node.inputs[place], f"its size goes into {node.op}")

    def count(self, source: Source, ids: Ids) -> None:
        """Say that an integer counts elements; they stay where it cannot follow them.

        Args:
            source: Where the integer comes from.
            ids: What it counts; of a position from the end, what is from it to the end.
        """
        if source is None or (isinstance(source, Size) and len(source.ids) != len(ids)):
            self.elements.freeze(ids, COMPUTED)
            if source is not None:
                self.elements.freeze(source.ids, COMPUTED)
        elif isinstance(source, Size):
            self.elements.join(source.ids, ids)
        else:
            self._count_literal(source, ids)

    def _count_literal(self, literal: Literal, ids: Ids) -> None:
        key = literal.integers, literal.index
        known = self._owners.get(key)
        if known is None:
            self._owners[key] = ids
            self.elements.counted.append(Counted(*key, literal.value, ids))
        elif len(known) == len(ids):
            self.elements.join(known, ids)
        if key in self._shared or (known is not None and len(known) != len(ids)):
            self.elements.freeze(ids, COMPUTED)
            self.elements.freeze(ids if known is None else known, COMPUTED)

    def _shape(self, node: gs.Node) -> None:
        axes = self.elements.axes(node.inputs[0])
        shape = self._shape_of(node.outputs[0])
        if axes is None or shape is None:
            return
        stop = node.attrs.get("end", len(axes))
        chosen = axes[slice(node.attrs.get("start", 0), stop)]
        self._computed[id(node.outputs[0])] = shape, [Size(each) for each in chosen]

    def escape(self, tensor: gs.Tensor, reason: str) -> None:
        """Let the sizes stay that something computes with, and the literals that it reads too."""
        for source in self._computed.get(id(tensor), ((), []))[1]:
            self.hold(source, reason)

    def hold(self, source: Source, reason: str) -> None:
        """Let an integer stay what it is."""
        if isinstance(source, Size):
            self.elements.freeze(source.ids, reason)
        elif source is not None:
            key = source.integers, source.index
            self._shared.add(key)
            if key in self._owners:
                self.elements.freeze(self._owners[key], reason)

    def _shape_of(self, tensor: gs.Tensor) -> tuple[int, ...] | None:
        axes = self.elements.axes(tensor)
        return None if axes is None else tuple(map(len, axes))

    def _laid_out(self, node: gs.Node, place: int) -> _Sources:
        sources = self.read(node, place) or []
        array = np.empty(len(sources), object)
        array[:] = sources
        return array.reshape(self._shape_of(node.inputs[place]) or ())


_Sources = np.ndarray


def _may_be_sizes(constant: Constant) -> bool:
    is_integer = np.dtype(constant.dtype) in {np.dtype(np.int32), np.dtype(np.int64)}
    return is_integer and bool(np.prod(constant.shape, dtype=np.int64) <= MOST_INTEGERS)


def _kept(node: gs.Node, given: list[_Sources]) -> _Sources | None:
    if node.op == "Cast" and node.attrs.get("to") not in INTEGER_TYPES:
        return None
    return given[0]


def _concat(node: gs.Node, given: list[_Sources]) -> _Sources | None:
    return np.concatenate(given, axis=node.attrs.get("axis", 0))


def _gather(node: gs.Node, given: list[_Sources]) -> _Sources | None:
    places = _values(given[1])
    if places is None:
        return None
    return np.asarray(
        given[0].take(places.astype(np.int64), axis=node.attrs.get("axis", 0)), object
    )


def _slice(_: gs.Node, given: list[_Sources]) -> _Sources | None:
    bounds = [_values(each) for each in given[1:]]
    found = [int(each[0]) for each in bounds if each is not None and len(each) == 1]
    if given[0].ndim != 1 or not found or len(found) < len(bounds):
        return None
    start, stop, _axes, step = found + [0, 1][len(found) - 2 :]
    return given[0][start:stop:step] if step > 0 else None


def _values(sources: _Sources) -> _Sources | None:
    """Return integers that stand in a constant."""
    if not all(isinstance(each, Literal) for each in sources.ravel()):
        return None
    return np.array([each.value for each in sources.ravel()]).reshape(sources.shape)


INTEGER_TYPES = {6, 7}
"""INT32 and INT64."""

TRANSFERS: dict[str, Callable[[gs.Node, list[_Sources]], _Sources | None]] = {
    "Cast": _kept,
    "Concat": _concat,
    "Gather": _gather,
    "Identity": _kept,
    "Reshape": _kept,
    "Slice": _slice,
    "Squeeze": _kept,
    "Unsqueeze": _kept,
}
"""Operators that arrange integers anew; whatever the axes are, the order stays."""
