"""What the removal of channels costs the layers that multiply them, one channel after the other.

The second-order cost is that of block Optimal Brain Surgeon: with the inverse of the second moment
of a layer's inputs it is known, in closed form, what the layer's outputs lose when inputs are gone
and the others make up for them as well as they can (Hassibi and Stork, 1993; structured: Kurtic et
al., "ZipLM", 2023).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
from scipy.linalg import cho_factor, cho_solve

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from onnxcomp.recovery import Problem

    Floats = NDArray[np.float64]
    Channels = NDArray[np.intp]

CHUNKS = 256
"""A group of more channels than these loses several at a time."""


@dataclass(frozen=True, eq=False)
class Curve:
    """In which order channels go, and what it costs.

    Args:
        order: The channels, the first to go first.
        costs: What the removal of the first so many costs, from none on, relative to the variance
            of what the consumers give; one more than ``order`` has.
    """

    order: Channels
    costs: Floats


class Toll(Protocol):
    """What channels cost one who needs them."""

    def costs(self) -> Floats:
        """Return what each channel would cost if it went next, shape (channels,)."""
        ...

    def remove(self, chosen: Channels) -> float:
        """Remove channels; return what that costs."""
        ...


@dataclass(frozen=True, eq=False)
class Fixed:
    """A toll that does not depend on which other channels are gone.

    Args:
        each: What each channel costs, shape (channels,).
    """

    each: Floats

    def costs(self) -> Floats:
        """Return what each channel costs, shape (channels,)."""
        return self.each

    def remove(self, chosen: Channels) -> float:
        """Return what channels cost together."""
        return float(self.each[chosen].sum())


class SecondOrder:
    """What a layer's outputs lose when inputs go and the others make up for them.

    Args:
        problem: The layer, with the moments of its inputs.
        columns: The inputs that each channel is, shape (groups, channels, width).
    """

    def __init__(self, problem: Problem, columns: NDArray[np.intp]) -> None:
        self._columns = columns
        self._weights = [each.copy() for each in problem.weights]
        self._inverses = [_inverse(damped) for damped in problem.damped]
        self._total = variance(problem)

    def costs(self) -> Floats:
        """Return what each channel would cost if it went next, shape (channels,)."""
        parts = zip(self._weights, self._inverses, self._columns, strict=True)
        found: Floats = np.sum([_block_costs(*each) for each in parts], axis=0) / self._total
        return found

    def remove(self, chosen: Channels) -> float:
        """Remove channels, and move the weights of the others; return what that costs."""
        parts = zip(self._weights, self._inverses, self._columns, strict=True)
        lost = sum(_eliminate(*each[:2], each[2][chosen].reshape(-1)) for each in parts)
        return max(lost, 0.0) / self._total


def variance(problem: Problem) -> float:
    """Return the variance of a layer's outputs, all together; 1 where they do not vary."""
    parts = zip(problem.weights, problem.second, strict=True)
    return float(sum(np.vdot(each @ second, each) for each, second in parts)) or 1.0


def activation(problem: Problem, columns: NDArray[np.intp]) -> Fixed:
    """Return the toll of weights times what they multiply, each input by itself (Wanda, 2023)."""
    total = np.zeros(columns.shape[1])
    for weights, second, places in zip(problem.weights, problem.second, columns, strict=True):
        alone = np.square(weights).sum(axis=0) * np.maximum(np.diag(second), 0.0)
        total += alone[places].sum(axis=1)
    return Fixed(total / variance(problem))


def magnitude(squares: Floats) -> Fixed:
    """Return the toll of weights alone; ``squares`` are the squared norms, shape (channels,)."""
    return Fixed(squares / (float(squares.sum()) or 1.0))


def removal_curve(tolls: Sequence[Toll], channels: int, most: int) -> Curve:
    """Remove the channel that costs least, again and again.

    Args:
        tolls: Of all that need the channels.
        channels: How many there are.
        most: How many may go.
    """
    order: list[int] = []
    costs = [0.0]
    alive = np.ones(channels, bool)
    chunk = -(-channels // CHUNKS)
    while len(order) < most:
        costs_now = np.sum([toll.costs() for toll in tolls], axis=0)
        each = np.where(alive, costs_now, np.inf)
        chosen = np.argsort(each, kind="stable")[: min(chunk, most - len(order))]
        lost = sum(toll.remove(chosen) for toll in tolls)
        alive[chosen] = False
        order += chosen.tolist()
        # What a chunk costs together is shared out evenly.
        costs += [costs[-1] + lost * (n + 1) / len(chosen) for n in range(len(chosen))]
    return Curve(np.array(order, np.intp), np.array(costs))


def _inverse(damped: Floats) -> Floats:
    found: Floats = cho_solve(cho_factor(damped), np.eye(len(damped)))
    return found


def _eliminate(weights: Floats, inverse: Floats, gone: NDArray[np.intp]) -> float:
    """Take inputs out of a layer and out of the inverse, in place; return what that costs."""
    own = inverse[np.ix_(gone, gone)]
    moves = np.linalg.solve(own, inverse[gone])
    ours = weights[:, gone]
    lost = float(np.vdot(ours, np.linalg.solve(own, ours.T).T))
    weights -= ours @ moves
    inverse -= inverse[:, gone] @ moves
    weights[:, gone] = 0
    inverse[gone], inverse[:, gone] = 0, 0
    inverse[gone, gone] = 1
    return lost


def _block_costs(weights: Floats, inverse: Floats, columns: NDArray[np.intp]) -> Floats:
    """Return the trace of W_c (inverse_cc)^-1 W_c' for each channel's inputs c."""
    if columns.shape[1] == 1:
        flat = columns[:, 0]
        found: Floats = np.square(weights[:, flat]).sum(axis=0) / inverse[flat, flat]
        return found
    blocks = inverse[columns[:, :, None], columns[:, None, :]]
    ours = weights[:, columns].transpose(1, 2, 0)
    products = ours @ ours.transpose(0, 2, 1)
    traces: Floats = np.trace(np.linalg.solve(blocks, products), axis1=1, axis2=2)
    return traces
