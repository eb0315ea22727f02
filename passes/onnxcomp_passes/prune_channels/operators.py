"""An operator as its rule sees it: the elements of what it reads and gives."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from onnxcomp.graph import Constant
from onnxcomp_passes.prune_channels.groups import Integers, Use
from onnxcomp_passes.prune_channels.literals import Literal

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    import onnx_graphsurgeon as gs
    from numpy.typing import NDArray

    from onnxcomp_passes.prune_channels.elements import Elements, Ids, Preference
    from onnxcomp_passes.prune_channels.groups import Role
    from onnxcomp_passes.prune_channels.literals import Provenance, Source


@dataclass(eq=False)
class Operator:
    """A node with all that its rule needs, and all that the rule says.

    Args:
        node: The node.
        opset: Of the model.
        elements: What is known of elements.
        provenance: Where integers come from.
        fixed: Identities of tensors that depend on constants only.
        values: Those of some of them, flat, by identity.

    Attributes:
        taken: Inputs whose integers the rule has seen to.
        pairs: Elements that the rule relates.
        seen: Elements that the rule says anything of.
    """

    node: gs.Node
    opset: int
    elements: Elements
    provenance: Provenance
    fixed: frozenset[int]
    values: Mapping[int, NDArray[np.int64]]
    taken: set[int] = field(default_factory=set)
    pairs: list[tuple[Ids, Ids]] = field(default_factory=list)
    seen: list[Ids] = field(default_factory=list)

    @property
    def name(self) -> str:
        """The operator's type."""
        return str(self.node.op)

    def has(self, place: int) -> bool:
        """Tell whether an input is given."""
        return place < len(self.node.inputs) and bool(self.node.inputs[place].name)

    def input(self, place: int) -> list[Ids]:
        """Return the elements of each axis of an input; none where it is not given."""
        return (self.elements.axes(self.node.inputs[place]) or []) if self.has(place) else []

    def output(self, place: int = 0) -> list[Ids]:
        """Return the elements of each axis of an output; none where it is not given."""
        outputs = self.node.outputs
        given = place < len(outputs) and bool(outputs[place].name)
        return (self.elements.axes(outputs[place]) or []) if given else []

    def attribute(self, name: str, default: Any = None) -> Any:
        """Return an attribute."""
        return self.node.attrs.get(name, default)

    def axis(self, rank: int, default: int = 0) -> int:
        """Return the attribute ``axis`` from the front."""
        return int(self.node.attrs.get("axis", default)) % max(rank, 1)

    def is_fixed(self, place: int) -> bool:
        """Tell whether an input depends on constants only."""
        tensor = self.node.inputs[place]
        return isinstance(tensor, Constant) or id(tensor) in self.fixed

    def constant(self, place: int) -> NDArray[np.int64] | None:
        """Return the integers of an input, flat; None where they may change or are not given."""
        if not self.has(place):
            return None
        sources = self.provenance.read(self.node, place)
        literals = [each for each in sources or () if isinstance(each, Literal)]
        if sources is None or len(literals) < len(sources):
            return self.values.get(id(self.node.inputs[place]))
        return np.array([each.value for each in literals], np.int64)

    def sources(self, place: int) -> Sequence[Source] | None:
        """Return where each integer of an input comes from, which the rule has to count."""
        self.taken.add(place)
        return self.provenance.read(self.node, place) if self.has(place) else None

    def count(self, source: Source, ids: Ids) -> None:
        """Say that an integer is the number of some elements."""
        self.seen.append(ids)
        self.provenance.count(source, ids)

    def place(self, source: Source, axis: Ids, position: int) -> None:
        """Say that an integer is a position in an axis, perhaps stated from its end.

        Args:
            source: Where the integer comes from.
            axis: The axis.
            position: The position, from the front.
        """
        from_end = source if isinstance(source, Literal) and source.value < 0 else None
        if from_end is not None and not self._is_own(from_end):
            # Whatever else reads it may take a number below zero for something else.
            self.freeze([axis], "its positions are computed")
        elif from_end is not None:
            self.provenance.count(source, axis[position:])
        elif position:
            self.provenance.count(source, axis[:position])

    def _is_own(self, literal: Literal) -> bool:
        return literal.integers.node is self.node

    def hold(self, source: Source) -> None:
        """Say that an integer has to stay what it is."""
        if not (isinstance(source, Literal) and self._is_own(source)):
            self.provenance.hold(source, f"its size goes into {self.name}")

    def count_attribute(self, name: str, ids: Ids) -> None:
        """Say that an attribute, which is one integer, counts elements."""
        integers = Integers(self.node, name, (len(ids),))
        self.count(Literal(integers, 0, len(ids)), ids)

    def join(self, one: Ids, other: Ids) -> None:
        """Say that elements are the same, one by one."""
        self.elements.join(one, other)
        self.pairs.append((one.ravel(), other.ravel()))

    def merge(self, whole: Ids, factors: Sequence[Ids], prefers: Preference = "outer") -> None:
        """Say that an axis is made of pairs, the last factor fastest."""
        self.elements.merge(whole, factors, prefers)
        grid = whole.reshape([len(each) for each in factors])
        for axis, ids in enumerate(factors):
            members = np.moveaxis(grid, axis, 0).reshape(len(ids), -1)
            self.pairs.append((members.ravel(), ids.repeat(members.shape[1])))

    def join_axes(self, one: Iterable[Ids], other: Iterable[Ids]) -> None:
        """Say that the elements of several axes are the same, axis by axis."""
        for each, twin in zip(one, other, strict=True):
            self.join(each, twin)

    def freeze(self, axes: Iterable[Ids], reason: str) -> None:
        """Say that elements have to stay."""
        for ids in axes:
            self.elements.freeze(ids, reason)
            self.seen.append(ids)

    def leave(self, axes: Iterable[Ids]) -> None:
        """Say that elements may come and go."""
        self.seen.extend(axes)

    def freeze_all(self, reason: str) -> None:
        """Let everything stay that the operator reads or gives."""
        for tensor in (*self.node.inputs, *self.node.outputs):
            if tensor.name:
                self.freeze(self.elements.axes(tensor) or [], reason)

    def use(self, place: int, axis: int, role: Role) -> None:
        """Say what an axis of an input does with channels."""
        if not any(id(each) in self.fixed for each in self.node.outputs):
            key = id(self.node.inputs[place]), axis
            self.elements.uses.setdefault(key, []).append(Use(role, self.node))

    def freeze_unseen(self) -> None:
        """Let those axes stay of which the rule says nothing."""
        said = [*self.seen, *(ids for pair in self.pairs for ids in pair)]
        seen = np.concatenate([np.zeros(0, np.int64), *map(np.ravel, said)])
        for tensor in (*self.node.inputs, *self.node.outputs):
            for ids in (self.elements.axes(tensor) or []) if tensor.name else []:
                if len(ids) > 1 and not np.isin(ids, seen).any():
                    self.elements.freeze(ids, f"{self.name} does not tell what becomes of it")

    @property
    def mixes(self) -> str:
        """The reason for what the operator mixes without a weight that could be zero."""
        return f"{self.name} mixes along it"
