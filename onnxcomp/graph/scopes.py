"""How the constants of one scope are written: decoded, as nodes, or as initializers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeGuard

from onnxcomp.graph.order import ordered
from onnxcomp.graph.values import Constant, StoreValues

if TYPE_CHECKING:
    import onnx_graphsurgeon as gs

    from onnxcomp.graph.census import Census
    from onnxcomp.stores import Store


class WrittenScope:
    """How the constants and nodes of one scope are written.

    Attributes:
        nodes: The nodes in topological order.
        decoded: Constants that nodes of a decoding give.
        by_rows: Rank of the indices, by identity of the constants whose rows are decoded.
        leading: Constant nodes that come first.
        trailing: Constant nodes that come last.
        followed_by: Constant nodes, by identity of the node that they come before.
        initializers: All other constants.
        plain_names: Names of constants that keep their name and type.
    """

    def __init__(self, graph: gs.Graph, constants: list[gs.Constant], census: Census) -> None:
        self.nodes = ordered(graph.nodes)
        self.decoded: list[Constant] = []
        self.by_rows: dict[int, int] = {}
        self.leading: list[Constant] = []
        self.trailing: list[Constant] = []
        self.followed_by: dict[int, list[Constant]] = {}
        self.initializers: list[gs.Constant] = []
        in_place = {id(node) for node in self.nodes} if self.nodes == graph.nodes else set()
        for constant in constants:
            if isinstance(constant, Constant) and isinstance(constant.held, StoreValues):
                rank = _rank_of_rows(constant, graph, census)
                if rank is None:
                    self.decoded.append(constant)
                else:
                    self.by_rows[id(constant)] = rank
            elif not _is_constant_node(constant):
                self.initializers.append(constant)
            elif id(constant.follower) in in_place:
                self.followed_by.setdefault(id(constant.follower), []).append(constant)
            elif constant.follower is None and not constant.outputs:
                self.trailing.append(constant)
            else:
                self.leading.append(constant)
        self.plain_names = {each.name for each in constants if id(each) not in self.by_rows}


def _is_constant_node(constant: gs.Constant) -> TypeGuard[Constant]:
    """Whether a constant is still what its Constant node holds."""
    return (
        isinstance(constant, Constant)
        and constant.node is not None
        and constant.held is constant.node_values
    )


def store_in(constant: Constant) -> Store:
    """Return the store of a constant that has one."""
    values: Any = constant.held
    store: Store = values.store
    return store


def _rank_of_rows(constant: Constant, graph: gs.Graph, census: Census) -> int | None:
    """Return the rank of the indices if all that reads a store is one kind of Gather of rows."""
    store = store_in(constant)
    if not store.decodes_rows or id(constant) in census.outputs:
        return None
    if census.only_reader_scope(constant) is not graph:
        return None
    ranks = {_gathered_rank(reader, constant) for reader in constant.outputs}
    return ranks.pop() if len(ranks) == 1 else None


def _gathered_rank(reader: gs.Node, constant: Constant) -> int | None:
    if reader.op != "Gather" or reader.domain not in {None, "", "ai.onnx"}:
        return None
    table, indices = reader.inputs
    if table is not constant or isinstance(indices, Constant) or indices.shape is None:
        return None
    return len(indices.shape) if reader.attrs.get("axis", 0) == 0 else None
