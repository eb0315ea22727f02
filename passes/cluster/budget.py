"""Clustering so that the whole file keeps within a number of bytes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from onnxcomp.graph import count_bytes
from passes.cluster.calibrating import reserved_bytes

if TYPE_CHECKING:
    from collections.abc import Callable

    from onnxcomp.graph import Model
    from onnxcomp.pipeline import Context
    from onnxcomp.verdicts import Verdict
    from passes.cluster.choosing import Allotment, Choice

    Verdicts = dict[int, Verdict]

MOST_TRIALS = 8
"""Times that a budget is corrected for what it did not foresee."""


def keep_within(
    limit: int,
    model: Model,
    allotment: Allotment,
    cluster: Callable[[dict[int, Choice]], Verdicts],
    context: Context,
) -> Verdicts:
    """Cluster a model so that its file, biases and recipe to come included, keeps within a limit.

    Args:
        limit: Most bytes.
        model: The model.
        allotment: Chooses codings for a budget.
        cluster: Clusters with codings by the identity of constants; returns the verdicts.
        context: Tells whether biases will be added.

    Returns:
        Verdicts by the identity of the constants.

    Raises:
        ValueError: No coding is small enough; the message says how small the smallest is.
    """
    plain = {id(weight.tensor): weight.tensor.held for weight in allotment.weights}
    budget = limit - count_bytes(model)
    budget += sum(weight.tensor.nbytes for weight in allotment.weights)
    for _ in range(MOST_TRIALS):
        chosen = allotment.choose(budget)
        if chosen is None:
            break
        for weight in allotment.weights:
            weight.tensor.values = plain[id(weight.tensor)]
        found = cluster(chosen)
        excess = count_bytes(model) + reserved_bytes(model, found, context) - limit
        if excess <= 0:
            return found
        budget -= excess
    least = limit - budget + allotment.least_bytes
    raise ValueError(
        f"a file of {limit} bytes cannot be reached; the smallest has about {least} "
        "(allow more, or cluster more tensors)"
    )
