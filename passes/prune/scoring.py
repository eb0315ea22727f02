"""What it costs to make a weight zero: by its size, by its input, or by the second moment.

Scores are squared errors of the layer's output, or of the weight where nothing of the input is
known, and of meaning within a layer only.
"""

from __future__ import annotations

from itertools import combinations
from math import comb
from typing import TYPE_CHECKING

import numpy as np

from onnxcomp.recovery import Feedback

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from passes.prune.masks import Pattern

    Floats = NDArray[np.float64]
    Singles = NDArray[np.float32]

ROUNDS = 2
"""Times that weights go through the feedback, each with the limit that the last one found."""

MOST_CHOICES = 100
"""Ways to choose the inputs of a group that stay; more are not all tried."""


def magnitude_scores(weights: NDArray[np.floating]) -> Floats:
    """Return the squares of weights."""
    scores: Floats = np.square(weights, dtype=np.float64)
    return scores


def input_scores(weights: NDArray[np.floating], seconds: Sequence[Floats]) -> Floats:
    """Return the error that each weight makes alone.

    Wanda: Sun et al., "A simple and effective pruning approach for large language models", 2023.

    Args:
        weights: Shape (groups, outputs, inputs).
        seconds: Second moments of the inputs, one a group.
    """
    strength = np.stack([np.diag(second) for second in seconds])
    return magnitude_scores(weights) * strength[:, None]


def feedback_scores(
    weights: NDArray[np.floating], damped: Sequence[Floats], pattern: Pattern, sparsity: float
) -> Floats:
    """Return the error of each weight that those after it cannot make up for.

    Weights become zero input by input, where their score is below a limit, and the inputs that
    are still to come make up for them (SparseGPT: Frantar and Alistarh, "SparseGPT: Massive
    language models can be accurately pruned in one-shot", 2023). Of neighbours that are zero
    together the error is that of all; of N:M the best choice for each group.

    Args:
        weights: Shape (groups, outputs, inputs).
        damped: Damped second moments of the inputs, one a group.
        pattern: Which are zero together.
        sparsity: The share that becomes zero.
    """
    inputs = weights.shape[2]
    width = pattern.group or pattern.block
    if inputs % width or (pattern.group and comb(width, pattern.kept) > MOST_CHOICES):
        width = 1
    sweeps = [Feedback(each, width) for each in damped]
    if pattern.group and width > 1:
        pairs = zip(weights, sweeps, strict=True)
        return np.stack([_of_groups(one, feedback, pattern.kept) for one, feedback in pairs])
    limit = np.zeros((len(weights), weights.shape[1]))
    for _ in range(1 + ROUNDS):
        trio = zip(weights, sweeps, limit, strict=True)
        scores = np.stack([_of_inputs(one, feedback, width, low) for one, feedback, low in trio])
        limit = _limits(scores, pattern, sparsity)
    return scores


def _limits(scores: Floats, pattern: Pattern, sparsity: float) -> Floats:
    """Return for each output the score below which a share of the weights lies."""
    share = pattern.sparsity_of(sparsity)
    if pattern.by_row:
        return np.quantile(scores, share, axis=2)
    return np.full(scores.shape[:2], np.quantile(scores, share))


def _of_inputs(weights: Floats, feedback: Feedback, width: int, limit: Floats) -> Floats:
    """Return the scores when what lies below a limit, shape (outputs,), becomes zero."""
    found: list[Singles] = []

    def rounded(columns: Singles, metric: Singles) -> Singles:
        error = np.square(metric @ columns).sum(axis=0) / width
        found.extend([error] * width)
        return np.where(error < limit, np.float32(0), columns)

    feedback.round(weights, rounded)
    scores = np.empty(weights.shape)
    scores[:, feedback.order] = np.stack(found, axis=1)
    return scores


def _of_groups(weights: Floats, feedback: Feedback, kept: int) -> Floats:
    """Return 1 for the inputs of each group that should stay, and 0 for the others."""
    found: list[NDArray[np.bool_]] = []

    def rounded(columns: Singles, metric: Singles) -> Singles:
        done, stays = _best_of_group(columns, metric, kept)
        found.extend(stays)
        return done

    feedback.round(weights, rounded)
    scores = np.empty(weights.shape)
    scores[:, feedback.order] = np.stack(found, axis=1)
    return scores


def _best_of_group(
    columns: Singles, metric: Singles, kept: int
) -> tuple[Singles, NDArray[np.bool_]]:
    """Try every choice of inputs that stay, each making up for the others as well as it can.

    Args:
        columns: Shape (width, outputs).
        metric: An output's error e costs |metric e|^2.
        kept: How many stay.

    Returns:
        The columns afterwards, and which stay, shape (width, outputs) both.
    """
    cost = (metric.T @ metric).astype(np.float64)
    width = len(columns)
    done, stays = np.zeros_like(columns), np.zeros(columns.shape, bool)
    least = np.full(columns.shape[1], np.inf)
    for chosen in combinations(range(width), kept):
        stay = np.isin(np.arange(width), chosen)
        lost = columns[~stay]
        made_up = np.linalg.solve(cost[np.ix_(stay, stay)], cost[np.ix_(stay, ~stay)] @ lost)
        error = np.concatenate([-made_up, lost])
        both = np.concatenate([np.flatnonzero(stay), np.flatnonzero(~stay)])
        missed = np.sum(error * (cost[np.ix_(both, both)] @ error), axis=0)
        better = missed < least
        least = np.where(better, missed, least)
        stays = np.where(better, stay[:, None], stays)
        whole = np.zeros_like(columns)
        whole[stay] = columns[stay] + made_up
        done = np.where(better, whole, done)
    return done, stays
