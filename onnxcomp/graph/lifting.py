"""Making weights whole again: decodings that an exporter of ours wrote become constants."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import onnx

from onnxcomp.graph.model import Node
from onnxcomp.graph.values import Constant, StoreValues, TensorValues
from onnxcomp.stores import MARK, Indices, Leaf, Operation, parse_store

if TYPE_CHECKING:
    import onnx_graphsurgeon as gs

    from onnxcomp.graph.model import Graph, Model, Tensor
    from onnxcomp.stores import Expression, Store

DEEPEST = 16
"""No store writes a tree of more levels."""

PREFIX = "onnxcomp."
"""Starts the name of every tensor inside a decoding."""

ROWS = ".rows"
"""Ends the mark of a decoding that decodes gathered rows only."""


def lift_stores(model: Model) -> None:
    """Replace every marked decoding that its store would write again by a constant."""
    removed: set[int] = set()
    for top in (model, *model.local_functions):
        for scope in top.scopes():
            removed |= _lift_scope(scope, top.opset)
    if removed:
        outputs = {id(each) for scope in model.all_scopes() for each in scope.outputs}
        for scope in model.all_scopes():
            scope.nodes = [node for node in scope.nodes if id(node) not in removed]
            # What only decodings read, perhaps those of another scope, is part of a store now.
            scope.constants = [
                constant
                for constant in scope.constants
                if constant.outputs or id(constant) in outputs or constant.name in scope.unread
            ]


def _lift_scope(scope: Graph, opset: int) -> set[int]:
    """Lift what one scope decodes, and return the identities of the nodes that did it."""
    removed: set[int] = set()
    tables: dict[int, Constant] = {}
    for node in scope.nodes:
        if not isinstance(node, Node) or (kind := mark_of(node)) is None:
            continue
        if kind.endswith(ROWS):
            removed |= _lift_rows(scope, node, kind.removesuffix(ROWS), opset, tables)
        else:
            removed |= _lift_weight(scope, node, kind, opset)
    return removed


def mark_of(node: Node) -> str | None:
    """Return the store that a node's metadata names."""
    if node.source is None:
        return None
    return next((entry.value for entry in node.source.metadata_props if entry.key == MARK), None)


def _lift_weight(scope: Graph, last: Node, kind: str, opset: int) -> set[int]:
    tree, nodes, indices = _tree(last)
    store = None if tree is None or indices else parse_store(kind, tree, opset)
    if store is None:
        return set()
    (output,) = last.outputs
    constant = Constant(output.name, StoreValues(store))
    _replace(scope, output, constant)
    scope.constants.append(constant)
    return _disconnect(last, nodes)


def _lift_rows(
    scope: Graph, last: Node, kind: str, opset: int, tables: dict[int, Constant]
) -> set[int]:
    tree, nodes, indices = _tree(last)
    store = None if tree is None or len(indices) != 1 else parse_store(kind, tree, opset)
    if store is None:
        return set()
    codes = _gathered_codes(nodes, indices)
    if id(codes) not in tables:
        tables[id(codes)] = Constant(codes.name, StoreValues(store))
        scope.constants.append(tables[id(codes)])
    (output,) = last.outputs
    removed = _disconnect(last, nodes) - {id(last)}
    last.op, last.attrs = "Gather", {}
    last.inputs = [tables[id(codes)], next(iter(indices.values()))]
    last.outputs = [output]
    source = onnx.NodeProto()
    source.CopyFrom(last.source)
    del source.attribute[:]
    kept = [entry for entry in source.metadata_props if entry.key != MARK]
    del source.metadata_props[:]
    source.metadata_props.extend(kept)
    source.op_type = "Gather"
    last.source = source
    return removed


def _gathered_codes(nodes: dict[int, gs.Node], indices: dict[int, Tensor]) -> Tensor:
    """Return what the decoding gathers first by the model's own indices."""
    return next(
        node.inputs[0]
        for node in nodes.values()
        if node.op == "Gather" and id(node.inputs[1]) in indices
    )


def _tree(
    last: Node,
) -> tuple[Expression | None, dict[int, gs.Node], dict[int, Tensor]]:
    """Read the operators behind a node: the tree, its nodes, and the tensors that it is fed."""
    nodes: dict[int, gs.Node] = {}
    indices: dict[int, Tensor] = {}
    leaves: dict[int, Leaf] = {}
    operations: dict[int, Operation] = {}

    def walk(node: gs.Node, depth: int) -> Expression | None:
        if id(node) in operations:
            return operations[id(node)]
        if depth > DEEPEST or len(node.outputs) != 1:
            return None
        nodes[id(node)] = node
        inputs = []
        for tensor in node.inputs:
            below = read(tensor, depth)
            if below is None:
                return None
            inputs.append(below)
        attributes = tuple(
            (name, tuple(value) if isinstance(value, list) else value)
            for name, value in node.attrs.items()
        )
        operations[id(node)] = Operation(node.op, tuple(inputs), attributes)
        return operations[id(node)]

    def read(tensor: Tensor, depth: int) -> Expression | None:
        if isinstance(tensor, Constant):
            return leaves.setdefault(id(tensor), leaf_of(tensor)) if _is_plain(tensor) else None
        if tensor.name.startswith(PREFIX) and tensor.inputs:
            return walk(tensor.inputs[0], depth + 1)
        indices[id(tensor)] = tensor
        return Indices()

    return walk(last, 0), nodes, indices


def _is_plain(constant: Constant) -> bool:
    return isinstance(constant.held, TensorValues)


def leaf_of(constant: Constant) -> Leaf:
    """Return a constant that came from a tensor message as a leaf, without unpacking it."""
    values: Any = constant.held
    return Leaf(values.packed(), values.tensor.data_type, values.shape)


def _replace(scope: Graph, old: Tensor, new: Tensor) -> None:
    for reader in list(old.outputs):
        reader.inputs = [new if each is old else each for each in reader.inputs]
    scope.outputs = [new if each is old else each for each in scope.outputs]


def _disconnect(last: gs.Node, nodes: dict[int, gs.Node]) -> set[int]:
    """Take the nodes apart from which ``last`` alone reads, and return their identities."""
    removed: set[int] = set()
    waiting = [last]
    while waiting:
        node = waiting.pop()
        below = [tensor for tensor in node.inputs if not isinstance(tensor, Constant)]
        node.inputs.clear()
        node.outputs.clear()
        removed.add(id(node))
        waiting.extend(
            tensor.inputs[0]
            for tensor in below
            if not tensor.outputs and tensor.inputs and id(tensor.inputs[0]) in nodes
        )
    return removed


def store_of(constant: Constant) -> Store | None:
    """Return the store that a constant is kept in, or None for plain values."""
    held = constant.held
    return held.store if isinstance(held, StoreValues) else None
