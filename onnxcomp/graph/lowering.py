"""Writing stores out as operators: the one place where decodings are built."""

from __future__ import annotations

from itertools import count
from typing import TYPE_CHECKING

import onnx

from onnxcomp.graph.lifting import PREFIX, ROWS
from onnxcomp.graph.messages import copy_without
from onnxcomp.stores import MARK, Indices, Leaf, Operation, SparseStore, is_shared

if TYPE_CHECKING:
    from collections.abc import Collection

    from onnxcomp.stores import Expression, Store

SMALL = 1 << 16
"""Leaves of at most this many bytes are written once, however many decodings use them."""

TYPE_SINCE_IR = {
    "FLOAT8E4M3FN": 9,
    "FLOAT8E5M2": 9,
    "UINT4": 10,
    "INT4": 10,
    "UINT2": 13,
    "INT2": 13,
}
"""The IR version that a low-bit element type needs."""


class LeafPool:
    """The arrays of the decodings of one scope, each written once.

    Args:
        names: Gives names that the model does not have yet.
    """

    def __init__(self, names: Names) -> None:
        self._names = names
        self._known: dict[tuple[object, ...], str] = {}
        self.leaves: list[tuple[str, Leaf]] = []

    def name_of(self, leaf: Leaf, name: str | None = None) -> str:
        """Return the name under which a leaf is written: ``name`` if one is given.

        A leaf without one may be another's that has the same content.
        """
        size = leaf.data.nbytes
        content = leaf.data.tobytes() if size <= SMALL else leaf.data.ctypes.data
        key = (name, leaf.data_type, leaf.shape, size, content)
        if key not in self._known:
            self._known[key] = name or self._names.fresh()
            self.leaves.append((self._known[key], leaf))
        return self._known[key]

    @property
    def ir_version(self) -> int:
        """The least IR version that has the leaves' types."""
        kinds = {onnx.TensorProto.DataType.Name(leaf.data_type) for _, leaf in self.leaves}
        return max((TYPE_SINCE_IR.get(kind, 1) for kind in kinds), default=1)


class Names:
    """Names for what a decoding adds.

    Args:
        taken: Names that the model has.
    """

    def __init__(self, taken: Collection[str]) -> None:
        self._taken = {name for name in taken if name.startswith(PREFIX)}
        self._numbers = count()

    def fresh(self) -> str:
        """Return a name that nothing has."""
        return next(
            name
            for name in (f"{PREFIX}{number}" for number in self._numbers)
            if name not in self._taken
        )


class Decoder:
    """Writes decodings into one scope.

    Args:
        names: Gives names for intermediate results.
        shared: Takes the leaves that all scopes may use.
        own: Takes the other leaves.
    """

    def __init__(self, names: Names, shared: LeafPool, own: LeafPool) -> None:
        self._names = names
        self._shared = shared
        self._own = own
        self._written: dict[tuple[object, ...], str] = {}

    def weight(self, store: Store, output: str) -> list[onnx.NodeProto]:
        """Return the nodes that decode a whole weight into ``output``."""
        nodes = self._nodes(store.expression(), output, None, None)
        _mark(nodes[-1], store.kind)
        return nodes

    def rows(
        self, store: Store, reader: onnx.NodeProto, indices_rank: int
    ) -> list[onnx.NodeProto]:
        """Return the nodes that stand in for ``reader``, a Gather from the weight.

        The codes take the weight's name.
        """
        assert not isinstance(store, SparseStore)  # noqa: S101 - it decodes no rows
        table, indices = reader.input
        tree = store.row_expression(indices_rank)
        nodes = self._nodes(tree, reader.output[0], indices, table)
        nodes[-1].MergeFrom(copy_without(reader, {"op_type", "input", "output", "attribute"}))
        _mark(nodes[-1], store.kind + ROWS)
        return nodes

    def _nodes(
        self, tree: Expression, output: str, indices: str | None, table: str | None
    ) -> list[onnx.NodeProto]:
        nodes: list[onnx.NodeProto] = []
        results: dict[int, str] = {}
        # What the given indices gather first are the codes; scales may come after them.
        named = [] if table is None else [table]

        def write(expression: Expression, name: str | None) -> str:
            if isinstance(expression, Indices):
                assert indices is not None  # noqa: S101 - only rows are decoded by indices
                return indices
            if isinstance(expression, Leaf):
                pool = self._shared if expression.shared else self._own
                return pool.name_of(expression, name)
            if id(expression) in results:
                return results[id(expression)]
            inputs = []
            for each in expression.inputs:
                is_table = _gathers_rows(expression) and isinstance(each, Leaf)
                inputs.append(write(each, named.pop() if is_table and named else None))
            result = output if expression is tree else self._names.fresh()
            if is_shared(expression):
                known = self._written.setdefault(
                    (expression.op_type, expression.attributes, *inputs), result
                )
                if known is not result:
                    return known
            nodes.append(expression.to_proto(inputs, result))
            results[id(expression)] = result
            return result

        write(tree, None)
        return nodes


def _gathers_rows(expression: Operation) -> bool:
    return expression.op_type == "Gather" and isinstance(expression.inputs[1], Indices)


def _mark(node: onnx.NodeProto, kind: str) -> None:
    entry = node.metadata_props.add()
    entry.key, entry.value = MARK, kind
