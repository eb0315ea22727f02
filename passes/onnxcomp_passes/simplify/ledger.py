"""What became of each weight while a model was simplified."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from onnxcomp.graph import Constant, weights
from onnxcomp.pipeline import change, skip

if TYPE_CHECKING:
    from collections.abc import Callable

    from onnxcomp.graph import Model, Weight
    from onnxcomp.verdicts import Verdict


@dataclass
class Ledger:
    """Notes on weights, by identity of what they held when the model came.

    Attributes:
        reasons: What was done with a weight.
        owners: Constants that were made, by identity, and whose bytes theirs count as.
    """

    reasons: dict[int, str] = field(default_factory=dict)
    owners: dict[int, int] = field(default_factory=dict)

    def set_values(self, constant: Constant, values: Any, reason: str) -> None:
        """Give a constant other values."""
        held = self.owners.get(id(constant), id(constant.held))
        self.owners[id(constant)] = held
        self.reasons[held] = reason
        constant.values = values

    def verdicts(
        self, before: Model, after: Model, why_kept: Callable[[Weight], str]
    ) -> list[Verdict]:
        """Judge every weight of a model by what is left of it.

        Args:
            before: The model as it came.
            after: The model as it leaves.
            why_kept: Says why a weight is as it was.
        """
        constants = [each for scope in after.all_scopes() for each in scope.constants]
        left = {id(each.held) for each in constants}
        came = {id(each.held) for scope in before.all_scopes() for each in scope.constants}
        listed = list(weights(before))
        gone = [weight for weight in listed if id(weight.tensor.held) not in left]
        lineage = _Lineage(before, gone)
        sizes: dict[int, int] = {}
        for constant in constants:
            if id(constant.held) in came:
                continue
            owner = self.owners.get(id(constant)) or lineage.owner(constant.name)
            if owner is not None:
                sizes[owner] = sizes.get(owner, 0) + constant.nbytes
        return [
            skip(weight, why_kept(weight))
            if id(weight.tensor.held) in left
            else self._changed(weight, sizes.get(id(weight.tensor.held)), constants)
            for weight in listed
        ]

    def _changed(self, weight: Weight, size: int | None, left: list[Constant]) -> Verdict:
        reason = self.reasons.get(id(weight.tensor.held))
        if reason is None and not weight.readers:
            reason = "nothing read it"
        elif reason is None and size is None:
            twin = _twin(weight, left)
            reason = f"identical to {twin}" if twin else "folded together with another"
        usual = "folded with the operators that rearranged it"
        before = weight.tensor.nbytes
        return change(weight, reason or usual, before=before, after=size or 0, error=0.0)


def _twin(weight: Weight, constants: list[Constant]) -> str | None:
    """Return the name of a constant with the values of a weight."""
    kind = (weight.dtype, weight.shape)
    alike = (each for each in constants if (each.dtype, tuple(each.shape)) == kind)
    values = weight.load()
    return next((each.name for each in alike if np.array_equal(each.values, values)), None)


class _Lineage:
    """Which weight a folded constant came of: the largest that is gone and that it depends on."""

    def __init__(self, model: Model, gone: list[Weight]) -> None:
        self._gone = {id(weight.tensor): weight for weight in gone}
        self._named = {weight.name: weight for weight in gone}
        self._makers = {
            tensor.name: node
            for scope in model.all_scopes()
            for node in scope.nodes
            for tensor in node.outputs
        }

    def owner(self, name: str) -> int | None:
        """Return the identity of what the weight held; None where there is no such weight."""
        if name in self._named:
            return id(self._named[name].tensor.held)
        found: list[Weight] = []
        waiting = [self._makers[name]] if name in self._makers else []
        seen = set()
        while waiting:
            node = waiting.pop()
            if id(node) in seen:
                continue
            seen.add(id(node))
            for tensor in node.inputs:
                if id(tensor) in self._gone:
                    found.append(self._gone[id(tensor)])
                elif not isinstance(tensor, Constant):
                    waiting.extend(tensor.inputs)
        largest = max(found, key=lambda weight: weight.tensor.nbytes, default=None)
        return None if largest is None else id(largest.tensor.held)
