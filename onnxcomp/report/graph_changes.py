"""What became of the operators of a model: which were rewritten, and which are of another size."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_graphsurgeon as gs

from onnxcomp.report.frozen import Record

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from onnxcomp.graph import Model

Shapes = tuple[tuple[int, ...], ...]


class Rewrite(Record):
    """Operators that became other operators, in one or more places.

    Attributes:
        before: Types of the operators that were there, in the order of the file.
        after: Types of those that stand there now; none where they were removed.
        places: For each place, the name of the first operator, or of the tensor that it gives.
    """

    before: tuple[str, ...]
    after: tuple[str, ...]
    places: tuple[str, ...]


class Resized(Record):
    """An operator whose constants have other shapes.

    Attributes:
        name: Its name, or that of the tensor that it gives.
        op_type: Its type.
        before: Shapes of its constants.
        after: Likewise.
    """

    name: str
    op_type: str
    before: Shapes
    after: Shapes


class GraphChange(Record):
    """The operators of a model before and after.

    Weights in stores count as weights: the operators that decode them are not part of it.

    Attributes:
        operators_before: How often each type occurs, in all scopes, the most frequent first.
        operators_after: Likewise.
        rewrites: What was rewritten, the most frequent first.
        resized: Operators of which only the sizes changed, in the order of the file.
    """

    operators_before: dict[str, int]
    operators_after: dict[str, int]
    rewrites: tuple[Rewrite, ...]
    resized: tuple[Resized, ...]


@dataclass(frozen=True)
class _Node:
    """An operator as far as it is compared; ``name`` alone makes no difference."""

    op: str
    reads: tuple[str, ...]
    gives: tuple[str, ...]
    shapes: Shapes

    @property
    def place(self) -> str:
        return next((name for name in self.gives if name), self.op)


def graph_change(before: Model, after: Model) -> GraphChange:
    """Compare the operators of two models; no weight is loaded.

    Operators are the same where they have the type, the tensors and the shapes of constants of
    each other. The others are gathered into places: those that are joined by a tensor that only
    one of the models has, or that give the same tensor.
    """
    names: dict[_Node, str] = {}
    old, new = ([_node(node, names) for node in _nodes(model)] for model in (before, after))
    gone, made = _without(old, new), _without(new, old)
    patterns: dict[tuple[tuple[str, ...], tuple[str, ...]], list[str]] = {}
    resized = []
    for removed, added in _regions(gone, made, old, new):
        pattern = (tuple(node.op for node in removed), tuple(node.op for node in added))
        if pattern[0] == pattern[1]:
            pairs = zip(removed, added, strict=True)
            resized += [
                Resized(name=names[one], op_type=one.op, before=one.shapes, after=other.shapes)
                for one, other in pairs
                if one.shapes != other.shapes
            ]
        else:
            patterns.setdefault(pattern, []).append(names[(*removed, *added)[0]])
    ranked = sorted(patterns.items(), key=lambda item: -len(item[1]))
    return GraphChange(
        operators_before=_counts(old),
        operators_after=_counts(new),
        rewrites=tuple(
            Rewrite(before=pattern[0], after=pattern[1], places=tuple(places))
            for pattern, places in ranked
        ),
        resized=tuple(resized),
    )


def _nodes(model: Model) -> Iterator[Any]:
    return chain.from_iterable(scope.nodes for scope in model.all_scopes())


def _node(node: Any, names: dict[_Node, str]) -> _Node:
    constants = [each for each in node.inputs if isinstance(each, gs.Constant)]
    made = _Node(
        op=node.op,
        reads=tuple(each.name for each in node.inputs if not isinstance(each, gs.Constant)),
        gives=tuple(each.name for each in node.outputs),
        shapes=tuple(tuple(each.shape) for each in constants),
    )
    names.setdefault(made, node.name or made.place)
    return made


def _counts(nodes: Sequence[_Node]) -> dict[str, int]:
    return dict(Counter(node.op for node in nodes).most_common())


def _without(nodes: Sequence[_Node], others: Sequence[_Node]) -> list[_Node]:
    """Return the nodes that are not among others, in their order."""
    known = Counter(others)
    left = []
    for node in nodes:
        if known[node]:
            known[node] -= 1
        else:
            left.append(node)
    return left


def _regions(
    gone: Sequence[_Node], made: Sequence[_Node], old: Sequence[_Node], new: Sequence[_Node]
) -> Iterator[tuple[list[_Node], list[_Node]]]:
    """Yield the places: what was there, and what is there now."""
    from scipy.sparse import coo_array  # noqa: PLC0415 - slow to import
    from scipy.sparse.csgraph import connected_components  # noqa: PLC0415

    if not gone and not made:
        return
    in_old, in_new = _given(old), _given(new)
    only_old, only_new = in_old - in_new, in_new - in_old
    nodes = (*gone, *made)
    # A node beside the tensors that join it to others, numbered after the nodes.
    tensors: dict[str, int] = {}
    edges: list[tuple[int, int]] = []
    for place, node in enumerate(nodes):
        only_here = only_old if place < len(gone) else only_new
        for name in filter(None, (*node.gives, *only_here.intersection(node.reads))):
            edge = (place, tensors.setdefault(name, len(nodes) + len(tensors)))
            edges.append(edge)
    size = len(nodes) + len(tensors)
    rows, columns = np.array(edges, int).reshape(-1, 2).T
    joined = coo_array((np.ones(len(edges)), (rows, columns)), shape=(size, size))
    _, labels = connected_components(joined, directed=False)
    found: dict[int, tuple[list[_Node], list[_Node]]] = {}
    for place, node in enumerate(nodes):
        sides = found.setdefault(int(labels[place]), ([], []))
        sides[place >= len(gone)].append(node)
    yield from found.values()


def _given(nodes: Iterable[_Node]) -> set[str]:
    return {name for node in nodes for name in node.gives}
