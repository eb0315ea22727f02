"""A model that rounds tensors with ordinary operators, so that one session tries any grids."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from onnxcomp.graph import Constant, Node, Variable

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from passes.quantize.grids import ActivationGrid
    from passes.quantize.placement import Placement

FINE = 2.0**-16
"""A step that is nothing beside the range it divides: as good as no rounding."""


@dataclass(frozen=True, eq=False)
class Knobs:
    """The constants that set what a simulated rounding does.

    Args:
        low: Least value.
        high: Greatest value.
        step: Distance of two values.
    """

    low: Constant
    high: Constant
    step: Constant

    def set_to(self, grid: ActivationGrid) -> list[tuple[Constant, NDArray[Any]]]:
        """Return the values that make it round to a grid."""
        values = (*grid.ends, float(grid.scale))
        return [
            (knob, np.array(value, knob.dtype))
            for knob, value in zip((self.low, self.high, self.step), values, strict=True)
        ]


def simulate(placement: Placement, reach: Sequence[float]) -> list[Knobs]:
    """Let a model round tensors, each so finely that it changes nothing until it is set.

    A tensor that has the grid of another is not rounded again.

    Args:
        placement: What is rounded; its model is changed.
        reach: The largest magnitude of each tensor.

    Returns:
        What sets each.
    """
    return [
        _round(placement, number, most) for number, most in enumerate(reach)
    ]


def _round(placement: Placement, number: int, most: float) -> Knobs:
    rounded = placement.tensors[number]
    dtype, name = rounded.dtype, f"onnxcomp.rounded.{number}"
    limit = float(np.finfo(dtype).max)
    values = {"low": -limit, "high": limit, "step": max(most, float(np.finfo(dtype).tiny)) * FINE}
    low, high, step = (
        Constant(f"{name}.{key}", np.array(value, dtype)) for key, value in values.items()
    )
    steps = [("Clip", [low, high]), ("Div", [step]), ("Round", []), ("Mul", [step])]
    made: list[Node] = []
    last: list[Variable] = []
    for op, constants in steps:
        output = Variable(f"{name}.{op}", rounded.tensor.dtype)
        made.append(Node(op, output.name, {}, [*last, *constants], [output]))
        last = [output]
    placement.replace(rounded, last[0], made)
    return Knobs(low, high, step)
