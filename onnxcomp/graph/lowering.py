"""Writing stores out as operators: the one place where decodings are built."""

from __future__ import annotations

from itertools import count
from typing import TYPE_CHECKING

import onnx

from onnxcomp.graph.lifting import PREFIX, ROWS
from onnxcomp.graph.messages import copy_without
from onnxcomp.stores import MARK, Indices, Leaf, Operation, is_shared

if TYPE_CHECKING:
    from collections.abc import Collection

    from onnxcomp.stores import CodebookStore, Expression

SMALL = 1 << 16
"""Leaves of at most this many bytes are written once, however many decodings use them."""

TYPE_SINCE_IR = {"UINT4": 10, "INT4": 10, "UINT2": 12, "INT2": 12}
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
        """Return the name under which a leaf is written; ``name`` if it is not written yet."""
        size = leaf.data.nbytes
        content = leaf.data.tobytes() if size <= SMALL else leaf.data.ctypes.data
        key = (leaf.data_type, leaf.shape, size, content)
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

    def weight(self, store: CodebookStore, output: str) -> list[onnx.NodeProto]:
        """Return the nodes that decode a whole weight into ``output``."""
        nodes = self._nodes(store.expression(), output, None, None)
        _mark(nodes[-1], store.kind)
        return nodes

    def rows(
        self, store: CodebookStore, reader: onnx.NodeProto, indices_rank: int
    ) -> list[onnx.NodeProto]:
        """Return the nodes that stand in for ``reader``, a Gather from the weight.

        The packed codes take the weight's name.
        """
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

        def write(expression: Expression, name: str | None) -> str:
            if isinstance(expression, Indices):
                assert indices is not None  # noqa: S101 - only rows are decoded by indices
                return indices
            if isinstance(expression, Leaf):
                pool = self._shared if expression.shared else self._own
                return pool.name_of(expression, name)
            gathers_rows = _gathers(expression)
            inputs = []
            for place, each in enumerate(expression.inputs):
                is_table = gathers_rows and place == 0 and expression.op_type == "Gather"
                named = table if is_table and _is_packed(each) else None
                inputs.append(write(each, named))
            result = output if expression is tree else self._names.fresh()
            if is_shared(expression):
                known = self._written.setdefault(
                    (expression.op_type, expression.attributes, *inputs), result
                )
                if known is not result:
                    return known
            nodes.append(expression.to_proto(inputs, result))
            return result

        write(tree, None)
        return nodes


def _gathers(expression: Operation) -> bool:
    return any(isinstance(each, Indices) for each in expression.inputs)


def _is_packed(expression: Expression) -> bool:
    return isinstance(expression, Leaf) and expression.data_type == onnx.TensorProto.UINT8


def _mark(node: onnx.NodeProto, kind: str) -> None:
    entry = node.metadata_props.add()
    entry.key, entry.value = MARK, kind
