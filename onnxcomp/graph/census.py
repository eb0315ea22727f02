"""One walk over a model: who reads which constant, and which names are taken."""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnx_graphsurgeon as gs

from onnxcomp.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from onnxcomp.graph.model import Graph, Model
    from onnxcomp.graph.values import Constant


class Census:
    """What one scope has to know of the others when it is written.

    Args:
        model: The model, as the passes left it.

    Attributes:
        names: Names of all tensors.
        readers: Scopes that read a constant, by the constant's identity.
        outputs: Identities of the tensors that some scope gives out.
    """

    def __init__(self, model: Model) -> None:
        self.names: set[str] = set()
        self.readers: dict[int, list[Graph]] = {}
        self.outputs: set[int] = set()
        self._unlisted: dict[int, list[gs.Constant]] = {}
        unlisted: dict[int, gs.Constant] = {}
        listed: set[int] = set()
        for top in (model, *model.local_functions):
            for scope in top.scopes():
                constants = scope.__dict__.get("constants", ())
                listed.update(map(id, constants))
                self.names.update(each.name for each in constants)
                self.names.update(each.name for each in scope.inputs)
                self.outputs.update(map(id, scope.outputs))
                for tensor in (each for node in scope.nodes for each in node.inputs):
                    self.names.add(tensor.name)
                    if isinstance(tensor, gs.Constant):
                        self.readers.setdefault(id(tensor), []).append(scope)
                        unlisted[id(tensor)] = tensor
                self.names.update(each.name for node in scope.nodes for each in node.outputs)
            for key, constant in unlisted.items():
                if key not in listed:
                    scopes = {id(scope) for scope in self.readers[key]}
                    home = scopes.pop() if len(scopes) == 1 else id(top)
                    self._unlisted.setdefault(home, []).append(constant)
            unlisted.clear()

    def constants(self, scope: gs.Graph) -> list[gs.Constant]:
        """Return the constants that are written into a scope.

        A constant that a pass made belongs to the scope that reads it; if several do, to the
        outermost.
        """
        own = [
            constant
            for constant in scope.__dict__.get("constants", ())
            if id(constant) in self.readers
            or id(constant) in self.outputs
            or constant.name in scope.__dict__.get("unread", ())
        ]
        return own + self._unlisted.get(id(scope), [])

    def only_reader_scope(self, constant: Constant) -> Graph | None:
        """Return the one scope that reads a constant; None where there are several or none."""
        scopes = {id(scope): scope for scope in self.readers.get(id(constant), [])}
        return next(iter(scopes.values())) if len(scopes) == 1 else None


def check_names(scope: gs.Graph, constants: Iterable[gs.Constant]) -> None:
    """Check that no two tensors of a scope have the same name, which a pass may have given them.

    Raises:
        ModelError: Two have.
    """
    known: dict[str, gs.Tensor] = {}
    tensors = (each for node in scope.nodes for each in (*node.inputs, *node.outputs))
    for tensor in (*constants, *scope.inputs, *scope.outputs, *tensors):
        if tensor.name and known.setdefault(tensor.name, tensor) is not tensor:
            raise ModelError(f"two tensors are called {tensor.name!r}; rename one of them")
