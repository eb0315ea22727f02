"""What it costs to make a weight zero: by its size, by its input, or by the second moment.

Scores are squared errors of the layer's output, or of the weight where nothing of the input is
known, and of meaning within a layer only.
"""

from __future__ import annotations

from itertools import combinations
from math import comb
from typing import TYPE_CHECKING, Any

import numpy as np

from onnxcomp.recovery import Feedback

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from onnxcomp.recovery.feedback import Round
    from onnxcomp_passes.prune.masks import Pattern

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


def input_scores(weights: NDArray[np.floating], second: Floats) -> Floats:
    """Return the error that each weight makes alone.

    Wanda: Sun et al., "A simple and effective pruning approach for large language models", 2023.

    Args:
        weights: Shape (groups, outputs, inputs).
        second: Second moments of the inputs, shape (groups, inputs, inputs).
    """
    return magnitude_scores(weights) * np.diagonal(second, axis1=1, axis2=2)[:, None]


class Sweep:
    """Weights become zero input by input, and the inputs that are still to come make up for them.

    What becomes zero is what has a score below a limit: the error that those to come cannot make
    up for (SparseGPT: Frantar and Alistarh, "SparseGPT: Massive language models can be accurately
    pruned in one-shot", 2023). Of neighbours that become zero together that is the error of all;
    of N:M the best choice of each group is taken.

    Args:
        damped: Damped second moments of the inputs, one a group of outputs.
        pattern: Which become zero together.
        order: The inputs, neighbours of the pattern next to each other.
    """

    def __init__(
        self, damped: Sequence[Floats], pattern: Pattern, order: NDArray[np.intp]
    ) -> None:
        width = pattern.group or pattern.block
        is_large = pattern.group > 0 and comb(width, pattern.kept) > MOST_CHOICES
        self._width = 1 if len(order) % width or is_large else width
        self._pattern = pattern
        self._order = order
        self._feedbacks = [Feedback(each[np.ix_(order, order)], self._width) for each in damped]

    def mask(self, weights: Floats, sparsity: float) -> NDArray[np.bool_]:
        """Return which weights stay.

        Args:
            weights: Shape (groups, outputs, inputs).
            sparsity: The share that becomes zero.
        """
        turned = weights[:, :, self._order]
        scores, _ = self._run(turned, None)
        for _ in range(0 if self._chooses else ROUNDS):
            scores, _ = self._run(turned, self._limits(scores, sparsity))
        kept = np.empty(weights.shape, bool)
        kept[:, :, self._order] = self._pattern.keep(scores, sparsity)
        return kept

    def pruned(self, weights: Floats, shares: Sequence[float]) -> Iterator[Floats]:
        """Yield weights of which about each share became zero, and the others made up for it."""
        turned = weights[:, :, self._order]
        scores, _ = self._run(turned, None)
        for share in shares:
            _, found = self._run(turned, self._limits(scores, share))
            result = np.empty(weights.shape)
            result[:, :, self._order] = found
            yield result

    @property
    def _chooses(self) -> bool:
        """Whether the best choice of each group is taken, and not what is below a limit."""
        return self._pattern.group > 0 and self._width > 1

    def _limits(self, scores: Floats, sparsity: float) -> Floats:
        """Return for each output the score below which a share of the weights lies."""
        share = self._pattern.sparsity_of(sparsity)
        if self._pattern.by_row:
            limits: Floats = np.quantile(scores, share, axis=2)
            return limits
        return np.full(scores.shape[:2], np.quantile(scores, share))

    def _run(self, turned: Floats, limits: Floats | None) -> tuple[Floats, Floats]:
        """Return the scores, and the weights afterwards; without limits nothing becomes zero."""
        scores, results = np.empty(turned.shape), np.empty(turned.shape)
        for group, feedback in enumerate(self._feedbacks):
            found: list[NDArray[Any]] = []
            limit = None if limits is None else limits[group]
            results[group] = feedback.round(turned[group], self._rounding(limit, found))
            scores[group][:, feedback.order] = np.stack(found, axis=1)
        return scores, results

    def _rounding(self, limit: Floats | None, found: list[NDArray[Any]]) -> Round:
        """Return what makes columns zero and notes the score of each."""

        def below(columns: Singles, metric: Singles) -> Singles:
            error = np.square(metric @ columns).sum(axis=0) / self._width
            found.extend([error] * self._width)
            return columns if limit is None else np.where(error < limit, np.float32(0), columns)

        def of_group(columns: Singles, metric: Singles) -> Singles:
            done, stays = _best_of_group(columns, metric, self._pattern.kept)
            found.extend(stays)
            return done

        return of_group if self._chooses else below


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
