"""A choice for each weight, so that the file keeps within a number of bytes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, TypeVar

import numpy as np

from onnxcomp.allocation import Option, allocate
from onnxcomp.errors import ReachError
from onnxcomp.graph import count_bytes
from onnxcomp.statistics import Order, layers

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from onnxcomp.graph import Constant, Model, Weight
    from onnxcomp.layerwise.curves import Curves

Choice = TypeVar("Choice")

LEFT = 0.2
"""Share of what a weight alone costs that is left when later layers have made up for it."""

MOST_TRIALS = 8
"""Times that a budget is corrected for what it did not foresee."""


class Allotment(Generic[Choice]):
    """What each of some weights takes and costs by each choice, from which a budget chooses.

    Args:
        model: The model.
        weights: Weights of it.
        choices: What each may become.
        curves: What each takes and costs by each choice.
        is_repaired: Whether later layers will make up for what earlier ones lose.

    Attributes:
        weights: The same.
    """

    def __init__(
        self,
        model: Model,
        weights: Sequence[Weight],
        choices: Sequence[Choice],
        curves: Curves,
        *,
        is_repaired: bool,
    ) -> None:
        self.weights = weights
        self._choices = choices
        own = {weight.tensor for weight in weights}
        known = [each for each in layers(model) if each.uses and each.weight.tensor in own]
        last = {layer.weight.tensor for layer in Order(model, known).last()}
        shares = [LEFT if is_repaired and weight.tensor not in last else 1.0 for weight in weights]
        self._options = [
            [Option(*pair) for pair in zip(sizes, np.multiply(lost, share).tolist(), strict=True)]
            for share, sizes, lost in zip(shares, curves.nbytes, curves.costs, strict=True)
        ]

    @property
    def least_bytes(self) -> int:
        """Bytes that all weights take at least."""
        return sum(min(option.nbytes for option in options) for options in self._options)

    def choose(self, budget: int) -> dict[Constant, Choice]:
        """Choose for each weight, so that as little as possible is lost.

        Args:
            budget: Bytes that all of them may take, `least_bytes` or more.
        """
        chosen = allocate(self._options, budget)
        assert chosen is not None  # noqa: S101 - the least fits
        pairs = zip(self.weights, chosen, strict=True)
        return {weight.tensor: self._choices[index] for weight, index in pairs}


def keep_within(
    limit: int,
    model: Model,
    allotment: Allotment[Choice],
    code: Callable[[dict[Constant, Choice]], int],
    *,
    name: str,
) -> None:
    """Code a model so that its file, biases and recipe to come included, keeps within a limit.

    Args:
        limit: Most bytes.
        model: The model; changed in place.
        allotment: Chooses for a budget.
        code: Codes by what was chosen; returns the bytes that will be added besides.
        name: The pass, for messages.

    Raises:
        ReachError: No choice is small enough; ``nearest`` is by how many times the file shrinks.
    """
    plain = {weight.tensor: weight.tensor.held for weight in allotment.weights}
    size = count_bytes(model)
    budget = limit - size
    budget += sum(weight.tensor.nbytes for weight in allotment.weights)
    excess = 0
    for trial in range(MOST_TRIALS):
        # The smallest is tried before it is said to be too large.
        is_last = trial == MOST_TRIALS - 1 or budget <= allotment.least_bytes
        if is_last:
            budget = allotment.least_bytes
        for tensor, held in plain.items():
            tensor.values = held
        reserved = code(allotment.choose(budget))
        excess = count_bytes(model) + reserved - limit
        if excess <= 0:
            return
        if is_last:
            break
        budget -= excess
    raise ReachError(
        name,
        f"a file of {limit} bytes cannot be reached; the smallest has about {limit + excess} "
        "(allow more, or leave fewer tensors out)",
        size / (limit + excess),
    )
