"""LSTM, GRU and RNN: hidden units with all their gates."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    from onnxcomp_passes.prune_channels.operators import Operator

WEIGHT, RECURRENCE, BIAS, LENGTHS, HIDDEN, CELL, PEEPHOLES = range(1, 8)
"""Inputs."""


def recurrent(op: Operator) -> None:
    """A hidden unit goes with its rows of every gate and with its column of the recurrence.

    It is consumed by the recurrence as well as by what comes after. Steps and directions stay.
    Weights: (directions, gates * hidden, in), (directions, gates * hidden, hidden).
    """
    x, weight, recurrence = op.input(0), op.input(WEIGHT), op.input(RECURRENCE)
    hidden = recurrence[2]
    batch, steps = x[:2] if op.attribute("layout", 0) else x[1::-1]
    op.freeze([steps], op.mixes)
    op.join(x[2], weight[2])
    op.use(WEIGHT, 2, "consumes")
    op.use(RECURRENCE, 2, "consumes")
    for place in (WEIGHT, RECURRENCE, BIAS, PEEPHOLES):
        if op.has(place):
            directions, rows = op.input(place)[:2]
            op.freeze([directions], "has a direction of its own for each element")
            op.join(np.tile(hidden, len(rows) // len(hidden)), rows)
            op.use(place, 1, "follows" if place in {BIAS, PEEPHOLES} else "produces")
    if not (op.is_fixed(WEIGHT) and op.is_fixed(RECURRENCE)):
        op.freeze((x[2], hidden), "its weight is computed")
    _states(op, batch, hidden)
    op.count_attribute("hidden_size", hidden)


def _states(op: Operator, batch: np.ndarray, hidden: np.ndarray) -> None:
    """Join the states before and after, and what is given of every step."""
    op.join_axes(op.input(LENGTHS), [batch][: len(op.input(LENGTHS))])
    states = [op.input(HIDDEN), op.input(CELL), op.output(1), op.output(2)]
    first = bool(op.attribute("layout", 0))
    for state in (each for each in states if each):
        op.join_axes((state[0 if first else 1], state[2]), (batch, hidden))
        op.freeze([state[1 if first else 0]], "has a direction of its own for each element")
    output = op.output()
    if output:
        op.join_axes((output[0 if first else 2], output[3]), (batch, hidden))
        op.freeze((output[1 if first else 0], output[2 if first else 1]), op.mixes)
    for place in (HIDDEN, CELL):
        if op.input(place):
            op.use(place, 2, "follows")


RULES: dict[str, Callable[[Operator], None]] = {
    "GRU": recurrent,
    "LSTM": recurrent,
    "RNN": recurrent,
}
