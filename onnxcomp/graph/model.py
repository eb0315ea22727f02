"""The graph that passes rewrite: GraphSurgeon's, plus what GraphSurgeon forgets.

Every object remembers the protobuf message that it was read from (``source``). Export starts from
that message and writes over it what has changed since, so that a field nobody here has heard of
survives.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnx_graphsurgeon as gs

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import onnx

    from onnxcomp.graph.values import Constant

Tensor = gs.Tensor
"""A `gs.Variable` or a `Constant`."""


class Variable(gs.Variable):
    """A tensor that is computed or fed, with the declaration that it was read from."""

    # GraphSurgeon compares by name, which tensors of two scopes may share.
    __eq__ = object.__eq__
    __hash__ = object.__hash__

    source: onnx.ValueInfoProto | None = None
    """The declaration, where there was one."""


class Node(gs.Node):
    """An operator, with the message that it was read from."""

    __eq__ = object.__eq__
    __hash__ = object.__hash__

    source: onnx.NodeProto | None = None
    """The message; None for a node that a pass made."""


class Graph(gs.Graph):
    """A graph, a control-flow body or a function, with its constants.

    Attributes:
        source: The message that it was read from, without its nodes and weights.
        constants: Constants that live in this scope, in the order of the file. A constant that
            a pass makes need not be listed: it is written into the scope that reads it.
        unread: Names of constants that had no reader when the model was read; they are kept.
        dangling: Names that the file declares but nothing has; they are kept.
    """

    source: onnx.GraphProto | onnx.FunctionProto
    constants: list[Constant]
    unread: frozenset[str]
    dangling: frozenset[str]

    def bodies(self) -> Iterator[Graph]:
        """Yield the bodies of this graph's control-flow nodes, one level down."""
        for node in self.nodes:
            yield from bodies_of(node)

    def scopes(self) -> Iterator[Graph]:
        """Yield this graph and all bodies inside it, outer ones first."""
        waiting = [self]
        while waiting:
            scope = waiting.pop()
            yield scope
            waiting.extend(reversed(list(scope.bodies())))


def bodies_of(node: gs.Node) -> Iterator[Graph]:
    """Yield the bodies of a control-flow node."""
    for value in node.attrs.values():
        if isinstance(value, Graph):
            yield value


class Model(Graph):
    """The main graph of a model.

    Attributes:
        header: The `onnx.ModelProto` without graph and functions.
        local_functions: The model's functions, as graphs.
        data_paths: The files beside the model from which its weights are mapped.
        folder: The folder that they are in; None where the model came from no file.
    """

    header: onnx.ModelProto
    local_functions: list[Graph]
    data_paths: list[Path]
    folder: Path | None

    @property
    def is_external(self) -> bool:
        """Whether the model keeps weights in files beside it."""
        return bool(self.data_paths)

    @property
    def metadata(self) -> dict[str, str]:
        """A copy of the model's metadata."""
        return {entry.key: entry.value for entry in self.header.metadata_props}

    def set_metadata(self, key: str, value: str) -> None:
        """Set one entry of the model's metadata."""
        for entry in self.header.metadata_props:
            if entry.key == key:
                entry.value = value
                return
        self.header.metadata_props.add(key=key, value=value)

    def all_scopes(self) -> Iterator[Graph]:
        """Yield every scope of the model: the main graph, functions, and all bodies."""
        for top in (self, *self.local_functions):
            yield from top.scopes()

    def count_nodes(self) -> int:
        """Count the operators in all scopes; Constant nodes are no operators here."""
        return sum(len(scope.nodes) for scope in self.all_scopes())
