"""A model that rounds tensors with ordinary operators, so that one session tries any grids."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from onnxcomp.graph import Constant, Node, Variable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from passes.quantize.grids import ActivationGrid
    from passes.quantize.placement import Placement
    from passes.quantize.smoothing import Factors

    Setting = tuple[Constant, NDArray[Any]]

FINE = 2.0**-20
"""A step that is nothing beside the range it divides: as good as no rounding."""


@dataclass(frozen=True, eq=False)
class Knobs:
    """The constants that set what a simulated rounding does.

    Args:
        low: Least value.
        high: Greatest value.
        step: Distance of two values.
        divisors: What channels are divided by before and multiplied with after; None where that
            is not tried.
    """

    low: Constant
    high: Constant
    step: Constant
    divisors: Constant | None

    def set_to(self, grid: ActivationGrid, divisors: Factors | None) -> list[Setting]:
        """Return the values that make it round to a grid, perhaps after a division."""
        values = (*grid.ends, float(grid.scale))
        settings = [
            (knob, np.array(value, knob.dtype))
            for knob, value in zip((self.low, self.high, self.step), values, strict=True)
        ]
        if divisors is not None and self.divisors is not None:
            settings.append((self.divisors, divisors.astype(self.divisors.dtype)))
        return settings


def simulate(placement: Placement, reach: Sequence[float], channels: Sequence[int]) -> list[Knobs]:
    """Let a model round tensors, each so finely that it changes nothing until it is set.

    Args:
        placement: What is rounded; its model is changed.
        reach: The largest magnitude of each tensor.
        channels: The size of the last axis of each tensor that is divided too; 0 for others.

    Returns:
        What sets each.
    """
    return [
        _simulate(placement, number, most, count)
        for number, (most, count) in enumerate(zip(reach, channels, strict=True))
    ]


def _simulate(placement: Placement, number: int, most: float, channels: int) -> Knobs:
    rounded = placement.tensors[number]
    dtype, name = rounded.dtype, f"onnxcomp.rounded.{number}"
    limit = float(np.finfo(dtype).max)
    values = {"low": -limit, "high": limit, "step": max(most, float(np.finfo(dtype).tiny)) * FINE}
    low, high, step = (
        Constant(f"{name}.{key}", np.array(value, dtype)) for key, value in values.items()
    )
    divisors = Constant(f"{name}.divisors", np.ones(channels, dtype)) if channels else None
    steps = [("Clip", [low, high]), ("Div", [step]), ("Round", []), ("Mul", [step])]
    if divisors is not None:
        steps = [("Div", [divisors]), *steps, ("Mul", [divisors])]
    made: list[Node] = []
    last: list[Variable] = []
    for place, (op, constants) in enumerate(steps):
        output = Variable(f"{name}.{place}", rounded.tensor.dtype)
        made.append(Node(op, output.name, {}, [*last, *constants], [output]))
        last = [output]
    placement.replace(rounded, last[0], made)
    return Knobs(low, high, step, divisors)
