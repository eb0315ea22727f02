"""Closed-form refits: of weights on a support, of scales, of a codebook, before a ReLU."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.linalg import LinAlgError
from scipy.linalg import cho_factor, cho_solve, solve

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

PENALTIES = (0.01, 0.1, 1.0)
"""How much the auxiliary responses of `refit_before_relu` cost, round after round."""

NARROWEST, WIDEST = 0.5, 2.0
"""What a gain may be."""

PRUNED = 0.05
"""The share of zeros that is no chance."""

MOST_PRODUCTS = 1 << 31
"""Of numbers, in all supports: above that, normal equations are not factorised one by one."""

NEGLIGIBLE = 1e-5
"""What is left of the residual, in strengths, relative to what the outputs are."""

MOST_ROUNDS = 100

DEAD = 1e-6
"""Deviation of a channel, in its own unit, that is none."""


def support_of(weights: NDArray[np.floating]) -> NDArray[np.bool_] | None:
    """Return which weights differ from zero, where so many do not that they were pruned.

    What rounds such weights keeps their zeros, which is what makes them small.
    """
    support: NDArray[np.bool_] = weights != 0
    return support if np.count_nonzero(support) < (1 - PRUNED) * support.size else None


def refit_on_support(
    target: Floats, support: NDArray[np.bool_], damped: Floats, start: Floats | None = None
) -> Floats:
    """Fit the weights that may differ from zero by least squares.

    For each output it solves the normal equations of the inputs that are left (Kwon et al., "A
    fast post-training pruning framework for transformers", 2022). Outputs with the same support
    are solved together; many supports of many inputs by conjugate gradients, all outputs at once.

    Args:
        target: The best weights without a support, shape (outputs, inputs).
        support: Which may differ from zero, likewise.
        damped: A damped second moment, shape (inputs, inputs).
        start: Weights that are close, for conjugate gradients to start from; None: the target.
    """
    patterns, rows_of = np.unique(support, axis=0, return_inverse=True)
    if len(patterns) * len(damped) ** 3 > MOST_PRODUCTS:
        return _by_conjugate_gradients(target, support, damped, start)
    result = np.zeros_like(target)
    right = target @ damped
    for place, pattern in enumerate(patterns):
        kept, rows = np.flatnonzero(pattern), np.flatnonzero(rows_of.reshape(-1) == place)
        try:
            factor = cho_factor(damped[np.ix_(kept, kept)]) if kept.size else None
        except LinAlgError:
            # Rounding is all that is left of columns that hardly vary beside their mean.
            return _by_conjugate_gradients(target, support, damped, start)
        if factor is not None:
            result[np.ix_(rows, kept)] = cho_solve(factor, right[np.ix_(rows, kept)].T).T
    return result


def _by_conjugate_gradients(
    target: Floats, support: NDArray[np.bool_], damped: Floats, start: Floats | None
) -> Floats:
    """Solve the normal equations of every output to `NEGLIGIBLE`, preconditioned by strength.

    What is left over is found in float64, and made up for in float32.
    """
    damped = damped / np.diag(damped).mean()
    start = np.where(support, target if start is None else start, 0.0)
    missed = np.where(support, (target - start) @ damped, 0.0)
    enough = NEGLIGIBLE * np.sum(target * (target @ damped), axis=1, keepdims=True)
    strength, second = np.diag(damped).astype(np.float32), damped.astype(np.float32)
    residual, found = missed.astype(np.float32), np.zeros(target.shape, np.float32)
    direction = residual / strength
    power = np.sum(residual * direction, axis=1, keepdims=True)
    for _ in range(MOST_ROUNDS):
        if np.all(power <= enough):
            break
        seen = np.where(support, direction @ second, np.float32(0))
        curvature = np.sum(direction * seen, axis=1, keepdims=True)
        step = np.divide(power, curvature, where=curvature > 0, out=np.zeros_like(power))
        found += step * direction
        residual -= step * seen
        steepest = residual / strength
        before, power = power, np.sum(residual * steepest, axis=1, keepdims=True)
        turn = np.divide(power, before, where=before > 0, out=np.zeros_like(power))
        direction = steepest + turn * direction
    return start + found


def refit_scales(target: Floats, rounded: Floats, second: Floats) -> Floats:
    """Return the factor of each output that brings rounded weights closest to their target.

    Args:
        target: Shape (outputs, inputs).
        rounded: Likewise.
        second: Second moment of the inputs, shape (inputs, inputs).

    Returns:
        Shape (outputs,); 1 where the rounded weights give nothing.
    """
    seen = rounded @ second
    products, squares = np.sum(seen * target, axis=1), np.sum(seen * rounded, axis=1)
    fits = (squares > 0) & (products > 0)
    return np.where(fits, np.divide(products, squares, where=fits, out=np.ones_like(squares)), 1.0)


def refit_codebook(
    target: Floats, codes: NDArray[np.integer], scale: Floats, second: Floats, entries: Floats
) -> Floats:
    """Fit a codebook to fixed codes by least squares on the outputs.

    Args:
        target: Shape (outputs, inputs).
        codes: Likewise.
        scale: What an output's entries are multiplied with, shape (outputs,).
        second: Second moment of the inputs, shape (inputs, inputs).
        entries: The codebook, shape (entries,); those that no code uses stay.

    Returns:
        The new codebook, shape (entries,).
    """
    members = [(codes == entry) * scale[:, None] for entry in range(len(entries))]
    used = [entry for entry, member in enumerate(members) if member.any()]
    if not used:
        return entries.astype(np.float64)
    normal = np.empty((len(used), len(used)))
    right = np.empty(len(used))
    seen = target @ second
    for row, entry in enumerate(used):
        spread = members[entry] @ second
        right[row] = np.vdot(members[entry], seen)
        normal[row] = [np.vdot(spread, members[other]) for other in used]
    normal[np.diag_indices_from(normal)] += 1e-9 * np.trace(normal) / len(used) + 1e-300
    result = entries.astype(np.float64)
    result[used] = solve(normal, right, assume_a="sym")
    return result


def gain_and_shift(
    original: tuple[Floats, Floats], repaired: tuple[Floats, Floats]
) -> tuple[Floats, Floats]:
    """Return what brings means and deviations of channels back to those of the original.

    A channel y becomes ``gain * y + shift`` (statistics correction: Frantar and Alistarh,
    "Optimal brain compression", 2022). Gains are kept between 0.5 and 2; a channel without
    deviation is only shifted.

    Args:
        original: Mean and standard deviation of each channel, of any shape.
        repaired: The same of the channels that are to be corrected.
    """
    mean, deviation = repaired
    alive = (deviation > DEAD) & (original[1] > DEAD)
    ratio = np.divide(original[1], deviation, where=alive, out=np.ones_like(deviation))
    gain = np.clip(ratio, NARROWEST, WIDEST)
    return gain, original[0] - gain * mean


def refit_before_relu(
    columns: Floats,
    responses: Floats,
    weights: Floats,
    shift: Floats,
    penalties: Sequence[float] = PENALTIES,
) -> tuple[Floats, Floats]:
    """Fit a layer whose outputs go through a ReLU, for which negative ones are all alike.

    Auxiliary responses, each in closed form, and least squares in turn (Zhang et al.,
    "Accelerating very deep convolutional networks for classification and detection", 2015).

    Args:
        columns: What the layer multiplies, shape (columns, inputs).
        responses: What the original gave before its ReLU, shape (columns, outputs).
        weights: Where to start, shape (outputs, inputs).
        shift: Likewise, shape (outputs,).
        penalties: What it costs that responses differ from the layer's, round after round.

    Returns:
        Weights and shift.
    """
    wanted = np.maximum(responses, 0.0)
    with_one = np.column_stack([columns, np.ones(len(columns))])
    normal = with_one.T @ with_one
    normal[np.diag_indices_from(normal)] += 1e-6 * np.trace(normal) / len(normal)
    factor = cho_factor(normal)
    best = (weights, shift)
    for penalty in penalties:
        given = columns @ best[0].T + best[1]
        responses = _auxiliary(wanted, given, penalty)
        solved = cho_solve(factor, with_one.T @ responses).T
        found = (solved[:, :-1], solved[:, -1])
        if _relu_error(columns, wanted, found) < _relu_error(columns, wanted, best):
            best = found
    return best


def _auxiliary(wanted: Floats, given: Floats, penalty: float) -> Floats:
    """Return z with the least (wanted - relu(z))^2 + penalty (z - given)^2."""
    below = np.minimum(given, 0.0)
    above = np.maximum((penalty * given + wanted) / (penalty + 1), 0.0)
    cost_below = np.square(wanted) + penalty * np.square(below - given)
    cost_above = np.square(wanted - above) + penalty * np.square(above - given)
    return np.where(cost_below < cost_above, below, above)


def _relu_error(columns: Floats, wanted: Floats, layer: tuple[Floats, Floats]) -> float:
    return float(np.sum(np.square(wanted - np.maximum(columns @ layer[0].T + layer[1], 0.0))))
