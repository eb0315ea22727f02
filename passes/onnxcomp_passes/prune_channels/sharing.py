"""Biases that several layers share, split so that each layer may lose other channels.

Exporters write identical biases once, zeros above all. One that is read by twelve layers would tie
their channels together, and a repair that changes one layer's bias would take them apart again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from onnxcomp.graph import FLOATS, Constant

if TYPE_CHECKING:
    from collections.abc import Sequence

    from onnxcomp.graph import Model
    from onnxcomp.verdicts import Verdict


@dataclass(frozen=True, eq=False)
class Shared:
    """A vector that several operators read.

    Args:
        constant: The vector, which the first of them reads.
        copies: Copies of it, one for each of the others.
    """

    constant: Constant
    copies: tuple[Constant, ...]

    @property
    def held(self) -> list[Constant]:
        """Those that some operator still reads."""
        return [each for each in (self.constant, *self.copies) if each.outputs]


def split(model: Model) -> list[Shared]:
    """Give each operator of the main graph that reads a shared vector its own copy."""
    found = []
    main = {id(node) for node in model.nodes}
    outputs = {id(each) for scope in model.all_scopes() for each in scope.outputs}
    names = {each.name for scope in model.all_scopes() for each in scope.constants}
    for constant in list(model.constants):
        readers = list(dict.fromkeys(constant.outputs))
        is_own = not constant.may_be_overridden and id(constant) not in outputs
        if len(readers) < 2 or not is_own or not _is_vector(constant):  # noqa: PLR2004
            continue
        if not main.issuperset(map(id, readers)):
            continue
        copies = []
        for node in readers[1:]:
            name = f"{constant.name}.{node.outputs[0].name}"
            while name in names:
                name += ".own"
            names.add(name)
            copy = Constant(name, constant.values)
            node.inputs = [copy if each is constant else each for each in node.inputs]
            copies.append(copy)
        found.append(Shared(constant, tuple(copies)))
    return found


def join(shared: Sequence[Shared]) -> None:
    """Let operators read one vector again where theirs are still the same."""
    for one in shared:
        first: dict[tuple[tuple[int, ...], bytes], Constant] = {}
        for constant in one.held:
            key = (tuple(constant.shape), constant.values.tobytes())
            kept = first.setdefault(key, constant)
            if kept is not constant:
                for node in list(constant.outputs):
                    node.inputs = [kept if each is constant else each for each in node.inputs]


def names_of(shared: Sequence[Shared]) -> dict[str, str]:
    """Return the names of copies, each with the name of the vector that it is a copy of."""
    return {each.name: one.constant.name for one in shared for each in one.copies}


def folded(verdicts: Sequence[Verdict], shared: Sequence[Shared]) -> list[Verdict]:
    """Return the verdicts on the vectors as they came, with all that became of them.

    Args:
        verdicts: With one for each copy.
        shared: The vectors, joined again.
    """
    copies = names_of(shared)
    changed = {
        copies.get(each.name, each.name): each for each in verdicts if each.verdict == "changed"
    }
    after = {one.constant.name: sum(each.nbytes for each in one.held) for one in shared}
    found = []
    for each in verdicts:
        if each.name in copies:
            continue
        update = {}
        if each.name in after and each.name in changed:
            told = changed[each.name]
            update = {"verdict": "changed", "reason": told.reason, "error": told.error}
            update["bytes_after"] = after[each.name]
        found.append(each.model_copy(update=update))
    return found


def _is_vector(constant: Constant) -> bool:
    """Whether a constant is a bias or a scale: one number for each channel."""
    shape = tuple(constant.shape)
    is_flat = bool(shape) and int(np.prod(shape)) == shape[-1] > 1
    return is_flat and np.dtype(constant.dtype) in FLOATS
