"""One walk over a graph, in which every operator says what it does with elements."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from onnxcomp.graph import Constant, SparseTensorValues, ordered, read_by, store_of
from onnxcomp_passes.prune_channels.elements import Misfit
from onnxcomp_passes.prune_channels.literals import Provenance
from onnxcomp_passes.prune_channels.operators import Operator
from onnxcomp_passes.prune_channels.rules import RULES
from onnxcomp_passes.prune_channels.shapes import is_standard

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import onnx_graphsurgeon as gs
    from numpy.typing import NDArray

    from onnxcomp.graph import Model
    from onnxcomp_passes.prune_channels.elements import Elements, Ids

FIRST_IR_WITHOUT_LISTED_INITIALIZERS = 4


READS_VALUES = {"CumSum", "Gather", "Pad", "Slice"}
"""Operators that say by the values of an input where elements go."""


class Tracing:
    """The walk; its elements hold what the operators said.

    Args:
        model: The model.
        elements: Told all that is found out.
        values: Those of tensors that depend on constants only, flat, by identity.
    """

    def __init__(
        self, model: Model, elements: Elements, values: Mapping[int, NDArray[np.int64]]
    ) -> None:
        self._elements = elements
        self._model = model
        self._values = values
        self._provenance = Provenance(elements, frozenset(map(id, _overridable(model))))
        self._folded: list[Operator] = []

    def run(self) -> None:
        """Let every operator of the main graph say what it does; what bodies read stays."""
        nodes = ordered(self._model.nodes)
        fixed = fixed_tensors(self._model)
        for tensor, reason in _held(self._model):
            for ids in self._elements.axes(tensor) or []:
                self._elements.freeze(ids, reason)
        for node in nodes:
            opset = self._model.opset
            op = Operator(node, opset, self._elements, self._provenance, fixed, self._values)
            self._visit(op)
            if any(id(each) in fixed for each in node.outputs):
                self._folded.append(op)
        for tensor, reason in _held(self._model):
            self._provenance.escape(tensor, reason)
        for op in reversed(self._folded):
            _hand_back(op)

    def _visit(self, op: Operator) -> None:
        node = op.node
        tensors = [each for each in (*node.inputs, *node.outputs) if each.name]
        unknown = [each.name for each in tensors if self._elements.axes(each) is None]
        if node.op not in RULES or not is_standard(node):
            op.freeze_all(f"no rule for {node.op}")
        elif unknown:
            op.freeze_all(f"the shape of {unknown[0]} is not known")
        else:
            try:
                RULES[node.op](op)
            except Misfit:
                op.taken.clear()
                op.freeze_all(f"no rule for {node.op} of such shapes")
            op.freeze_unseen()
        self._provenance.follow(node, op.taken)


def _hand_back(op: Operator) -> None:
    """Let constants do what is done with that which an operator makes of them.

    A weight may be turned, cut or scaled on the way to the operator that multiplies with it.
    """
    elements = op.elements
    for number, tensor in enumerate(op.node.outputs):
        for axis, ids in enumerate(op.output(number)):
            uses = elements.uses.get((id(tensor), axis), [])
            related = _related(op, ids) if uses else ids
            for place in range(len(op.node.inputs)):
                for at, given in enumerate(op.input(place)):
                    known = elements.uses.setdefault((id(op.node.inputs[place]), at), [])
                    if uses and np.isin(given, related).any():
                        known += [use for use in uses if use not in known]


def _related(op: Operator, ids: Ids) -> Ids:
    """Return the elements that an operator relates to some, directly or through factors."""
    found = ids
    while True:
        more = [
            *(one[np.isin(other, found)] for one, other in op.pairs),
            *(other[np.isin(one, found)] for one, other in op.pairs),
        ]
        wider = np.unique(np.concatenate([found, *more]))
        if len(wider) == len(np.unique(found)):
            return wider
        found = wider


def _held(model: Model) -> Iterator[tuple[gs.Tensor, str]]:
    """Yield tensors that have to stay as they are, and why."""
    for tensor in model.inputs:
        yield tensor, "is an input"
    for tensor in model.outputs:
        yield tensor, "is an output"
    for constant in _overridable(model):
        yield constant, "may be overridden by a caller"
    for top in (model, *model.local_functions):
        for node in top.nodes:
            inside = read_by(node) if top is not model else read_by(node)[len(node.inputs) :]
            for tensor in inside:
                yield tensor, f"is read inside {node.op}"
    for constant in model.constants:
        if store_of(constant) is not None:
            yield constant, "is in a store"
        elif isinstance(constant.held, SparseTensorValues):
            yield constant, "is sparse"


def _overridable(model: Model) -> list[Constant]:
    """Return initializers that are inputs too; before IR version 4 all are, and none changes."""
    listed = {each.name for each in model.source.input}
    if model.header.ir_version < FIRST_IR_WITHOUT_LISTED_INITIALIZERS:
        return []
    return [each for each in model.constants if each.name in listed]


def fixed_tensors(model: Model) -> frozenset[int]:
    """Return the identities of tensors that depend on constants only."""
    fixed: set[int] = set()
    for node in ordered(model.nodes):
        given = [each for each in node.inputs if each.name]
        is_fixed = all(isinstance(each, Constant) or id(each) in fixed for each in given)
        if given and is_fixed and node.op in RULES and is_standard(node):
            fixed.update(id(each) for each in node.outputs)
    return frozenset(fixed)


def read_values(model: Model, fixed: frozenset[int]) -> list[gs.Tensor]:
    """Return tensors that depend on constants only and say where elements go."""
    read = {
        id(tensor): tensor
        for node in model.nodes
        if node.op in READS_VALUES
        for tensor in node.inputs[1:]
        if id(tensor) in fixed
    }
    return list(read.values())
