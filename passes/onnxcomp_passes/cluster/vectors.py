"""Codebooks of short vectors: k-means in 2 to 4 dimensions, the same on any machine.

No matrix product of a BLAS library takes part, whose rounding depends on the number of threads;
all sums are elementwise or sequential.
"""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Singles = NDArray[np.float32]
Floats = NDArray[np.float64]
Codes = NDArray[np.uint8]

MAXIMUM_ENTRIES = 256
TRAINING_VECTORS = 131_072
"""Codebooks of more vectors are made from a random sample of so many."""

_STAGES = ((16_384, 60), (TRAINING_VECTORS, 15))
"""Vectors that take part, and most iterations over them."""

_SETTLED = 0.005
_ROWS = 512
_TRIALS = 4


def cluster_vectors(
    vectors: NDArray[Any],
    entries: int,
    *,
    weights: ArrayLike | None = None,
    seed: int = 0,
    keep_zero: bool = False,
) -> Singles:
    """Find a codebook with a small weighted squared error.

    Greedy k-means++ (Arthur & Vassilvitskii, 2007) picks the first entries, Lloyd's iterations
    move them, on a part of the training vectors first and then on all. An entry that loses its
    last vector is moved to the vector that is farthest from its own entry. The result is a
    local optimum for a sample of at most ``TRAINING_VECTORS`` vectors, not the best codebook.

    Args:
        vectors: Shape (n, d) with n > 0; d is 2 or 4 as a rule.
        entries: Most entries of the codebook, 1 to 256.
        weights: What each vector counts for, shape (n,), not negative; all the same if None.
        seed: Determines the sample and the first entries; the same seed gives the same bytes.
        keep_zero: One entry is exactly zero, so zero vectors stay zero.

    Returns:
        The entries in lexicographic order, shape (at most `entries`, d). If no more than that
        many distinct vectors are among the training vectors, they are the entries.

    Raises:
        ValueError: There are no vectors, one is not finite or `entries` is out of range.
    """
    if not 1 <= entries <= MAXIMUM_ENTRIES:
        raise ValueError(f"{entries} entries asked for, 1 to {MAXIMUM_ENTRIES} possible")
    if not vectors.size or not np.isfinite(vectors).all():
        raise ValueError("vectors to cluster must be finite and at least one")
    generator = np.random.default_rng(seed)
    counts = np.ones(len(vectors)) if weights is None else np.asarray(weights, np.float64)
    if not counts.any():
        counts = np.ones(len(vectors))
    useful = np.flatnonzero((counts > 0.0) & (vectors.any(axis=1) | (not keep_zero)))
    useful = generator.choice(useful, min(useful.size, TRAINING_VECTORS), replace=False)
    sample, sample_weights = vectors[useful].astype(np.float32), counts[useful]
    codebook = np.zeros((int(keep_zero), vectors.shape[1]), np.float32)
    for size, rounds in _STAGES:
        part, part_weights = sample[:size], sample_weights[:size]
        if len(codebook) < entries:
            codebook = _add_entries(part, part_weights, codebook, entries, generator)
        codebook = _settle(part, part_weights, codebook, int(keep_zero), rounds)
    return codebook[np.lexsort(codebook.T[::-1])]


def assign_vectors(vectors: NDArray[Any], codebook: NDArray[Any]) -> Codes:
    """Find the nearest entry for every vector, up to the rounding of float32.

    Args:
        vectors: Shape (n, d), finite.
        codebook: Shape (1 to 256, d).

    Returns:
        The index of the entry, shape (n,); the lowest where several are as near.

    Raises:
        ValueError: The codebook is empty or too long.
    """
    if not 1 <= len(codebook) <= MAXIMUM_ENTRIES:
        raise ValueError(f"a codebook has 1 to {MAXIMUM_ENTRIES} entries")
    axes = np.ascontiguousarray(codebook.T, np.float32)
    norms = np.sum(axes * axes, axis=0) * np.float32(0.5)
    codes = np.empty(len(vectors), np.uint8)
    scores, product = np.empty((2, _ROWS, len(codebook)), np.float32)
    for start in range(0, len(vectors), _ROWS):
        rows = vectors[start : start + _ROWS].astype(np.float32, copy=False)
        score, part = scores[: len(rows)], product[: len(rows)]
        np.multiply(rows[:, :1], -axes[0], out=score)
        score += norms
        for column in range(1, len(axes)):
            np.multiply(rows[:, column : column + 1], axes[column], out=part)
            score -= part
        codes[start : start + _ROWS] = np.argmin(score, axis=1)
    return codes


def _add_entries(
    sample: Singles,
    weights: Floats,
    codebook: Singles,
    entries: int,
    generator: np.random.Generator,
) -> Singles:
    chosen = list(codebook)
    errors = np.full(len(sample), np.inf)
    for entry in chosen:
        errors = np.minimum(errors, _distances(sample, entry))
    while len(chosen) < entries:
        chances = np.cumsum(weights * errors if chosen else weights)
        if not chances.size or chances[-1] <= 0.0:
            break
        drawn = generator.random(_TRIALS) * chances[-1]
        picks = np.searchsorted(chances[:-1], drawn, side="right")
        trials = [np.minimum(errors, _distances(sample, sample[pick])) for pick in picks]
        best = int(np.argmin([np.sum(weights * trial) for trial in trials]))
        chosen.append(sample[picks[best]])
        errors = trials[best]
    return np.array(chosen, np.float32).reshape(-1, sample.shape[1])


def _distances(sample: Singles, entries: Singles) -> Floats:
    total = np.zeros(len(sample))
    for column, centre in zip(sample.T, entries.T, strict=True):
        total += np.square(column - centre, dtype=np.float64)
    return total


def _settle(
    sample: Singles, weights: Floats, codebook: Singles, fixed: int, rounds: int
) -> Singles:
    """Run Lloyd's iterations; the first `fixed` entries stay where they are."""
    codes = assign_vectors(sample, codebook)
    for _ in range(rounds):
        codebook = _means(sample, weights, codes, codebook, fixed)
        before, codes = codes, assign_vectors(sample, codebook)
        if np.count_nonzero(codes != before) <= _SETTLED * codes.size:
            break
    return codebook


def _means(
    sample: Singles, weights: Floats, codes: Codes, codebook: Singles, fixed: int
) -> Singles:
    size = len(codebook)
    totals = np.bincount(codes, weights, minlength=size)
    moved = np.flatnonzero(totals > 0.0)
    moved = moved[moved >= fixed]
    sums = [np.bincount(codes, weights * column, minlength=size)[moved] for column in sample.T]
    means = codebook.copy()
    means[moved] = np.stack(sums, axis=1) / totals[moved, None]
    empty = np.flatnonzero(totals[fixed:] == 0.0) + fixed
    if empty.size:
        errors = weights * _distances(sample, codebook[codes])
        worst = np.argsort(-errors, kind="stable")[: empty.size]
        means[empty[: worst.size]] = sample[worst]
    return means
