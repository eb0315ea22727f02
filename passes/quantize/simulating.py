"""A model that rounds tensors with ordinary operators, so that one session tries any grids."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from onnx.helper import np_dtype_to_tensor_dtype

from onnxcomp.graph import Constant, Node, Variable
from onnxcomp.runtime.dtypes import is_float

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from passes.quantize.grids import ActivationGrid
    from passes.quantize.placement import Placement
    from passes.quantize.smoothing import Factors

    Setting = tuple[Constant, NDArray[Any]]
    Step = tuple[str, dict[str, Any], list[Constant]]

FINE = 2.0**-20
"""A step that is nothing beside the range it divides: as good as no rounding."""


@dataclass(frozen=True, eq=False)
class Knobs:
    """The constants that set what a simulated rounding does.

    Args:
        low: Least value.
        high: Greatest value.
        step: Distance of two values; of floats, what all are multiples of.
        divisors: What channels are divided by before and multiplied with after; None where that
            is not tried.
        is_on: Whether anything is rounded; None for integers, whose step may be nothing.
    """

    low: Constant
    high: Constant
    step: Constant
    divisors: Constant | None
    is_on: Constant | None = None

    def set_to(self, grid: ActivationGrid, divisors: Factors | None) -> list[Setting]:
        """Return the values that make it round to a grid, perhaps after a division."""
        values = (*grid.ends, float(grid.scale))
        settings = [
            (knob, np.array(value, knob.dtype))
            for knob, value in zip((self.low, self.high, self.step), values, strict=True)
        ]
        if divisors is not None and self.divisors is not None:
            settings.append((self.divisors, divisors.astype(self.divisors.dtype)))
        if self.is_on is not None:
            settings.append((self.is_on, np.ones((), np.bool_)))
        return settings


def simulate(
    placement: Placement, reach: Sequence[float], channels: Sequence[int], codes: np.dtype[Any]
) -> list[Knobs]:
    """Let a model round tensors, each so finely that it changes nothing until it is set.

    Args:
        placement: What is rounded; its model is changed.
        reach: The largest magnitude of each tensor.
        channels: The size of the last axis of each tensor that is divided too; 0 for others.
        codes: The codes' type.

    Returns:
        What sets each.
    """
    return [
        _simulate(placement, number, most, count, codes)
        for number, (most, count) in enumerate(zip(reach, channels, strict=True))
    ]


def _simulate(
    placement: Placement, number: int, most: float, channels: int, codes: np.dtype[Any]
) -> Knobs:
    rounded = placement.tensors[number]
    dtype, name = rounded.dtype, f"onnxcomp.rounded.{number}"
    limit = float(np.finfo(dtype).max)
    values = {"low": -limit, "high": limit, "step": max(most, float(np.finfo(dtype).tiny)) * FINE}
    low, high, step = (
        Constant(f"{name}.{key}", np.array(value, dtype)) for key, value in values.items()
    )
    divisors = Constant(f"{name}.divisors", np.ones(channels, dtype)) if channels else None
    is_on = Constant(f"{name}.is_on", np.zeros((), np.bool_)) if is_float(codes) else None
    rounding: list[Step] = [("Round", {}, [])]
    if is_on is not None:
        rounding = [
            ("Cast", {"to": np_dtype_to_tensor_dtype(each)}, []) for each in (codes, dtype)
        ]
    steps = [("Clip", {}, [low, high]), ("Div", {}, [step]), *rounding, ("Mul", {}, [step])]
    if divisors is not None:
        steps = [("Div", {}, [divisors]), *steps, ("Mul", {}, [divisors])]
    made = _chain(name, [("Identity", {}, []), *steps] if is_on is not None else steps)
    if is_on is not None:
        (plain,), (last,) = made[0].outputs, made[-1].outputs
        chosen = Variable(f"{name}.chosen", rounded.tensor.dtype)
        made.append(Node("Where", chosen.name, {}, [is_on, last, plain], [chosen]))
    placement.replace(rounded, made[-1].outputs[0], made)
    return Knobs(low, high, step, divisors, is_on)


def _chain(name: str, steps: Sequence[Step]) -> list[Node]:
    """Return operators of which each reads what the one before gives, and constants."""
    made: list[Node] = []
    last: list[Variable] = []
    for place, (op, attributes, constants) in enumerate(steps):
        output = Variable(f"{name}.{place}")
        made.append(Node(op, output.name, attributes, [*last, *constants], [output]))
        last = [output]
    return made
