"""Clustering so that the whole file keeps within a number of bytes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from onnxcomp.errors import ReachError
from onnxcomp.graph import count_bytes
from onnxcomp_passes.cluster.calibrating import reserved_bytes

if TYPE_CHECKING:
    from collections.abc import Callable

    from onnxcomp.graph import Model
    from onnxcomp.pipeline import Context
    from onnxcomp.verdicts import Verdict
    from onnxcomp_passes.cluster.choosing import Allotment
    from onnxcomp_passes.cluster.curves import Choice

    Verdicts = dict[int, Verdict]

MOST_TRIALS = 8
"""Times that a budget is corrected for what it did not foresee."""


def keep_within(
    limit: int,
    model: Model,
    allotment: Allotment,
    cluster: Callable[[dict[int, Choice]], Verdicts],
    context: Context,
    *,
    name: str,
    recipe_bytes: int = 0,
) -> Verdicts:
    """Cluster a model so that its file, biases and recipe to come included, keeps within a limit.

    Args:
        limit: Most bytes.
        model: The model.
        allotment: Chooses codings for a budget.
        cluster: Clusters with codings by the identity of constants; returns the verdicts.
        context: Tells whether biases will be added.
        name: The pass, for messages.
        recipe_bytes: What names in the recipe take.

    Returns:
        Verdicts by the identity of the constants.

    Raises:
        ReachError: No coding is small enough; ``nearest`` is by how many times the file shrinks.
    """
    plain = {id(weight.tensor): weight.tensor.held for weight in allotment.weights}
    size = count_bytes(model)
    budget = limit - size
    budget += sum(weight.tensor.nbytes for weight in allotment.weights)
    excess = 0
    for trial in range(MOST_TRIALS):
        # The smallest is tried before it is said to be too large.
        is_last = trial == MOST_TRIALS - 1 or budget <= allotment.least_bytes
        if is_last:
            budget = allotment.least_bytes
        for weight in allotment.weights:
            weight.tensor.values = plain[id(weight.tensor)]
        found = cluster(allotment.choose(budget))
        reserved = recipe_bytes + reserved_bytes(model, found, context)
        excess = count_bytes(model) + reserved - limit
        if excess <= 0:
            return found
        if is_last:
            break
        budget -= excess
    raise ReachError(
        name,
        f"a file of {limit} bytes cannot be reached; the smallest has about {limit + excess} "
        "(allow more, or cluster more tensors)",
        size / (limit + excess),
    )
