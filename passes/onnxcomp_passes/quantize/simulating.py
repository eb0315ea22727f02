"""A model that rounds tensors with ordinary operators, so that one session tries any grids.

A float is cut to fewer bits by the sum and the difference with a multiple of it (Dekker, "A
floating-point technique for extending the available precision", 1971), and to a multiple of the
smallest float by those with a number whose last bit that is. Casts do the same four times slower.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import ml_dtypes
import numpy as np

from onnxcomp.graph import Constant, Node, Variable
from onnxcomp.runtime.dtypes import is_float

if TYPE_CHECKING:
    from collections.abc import Sequence

    import onnx_graphsurgeon as gs
    from numpy.typing import NDArray

    from onnxcomp_passes.quantize.grids import ActivationGrid
    from onnxcomp_passes.quantize.placement import Placement
    from onnxcomp_passes.quantize.smoothing import Factors

    Setting = tuple[Constant, NDArray[Any]]

FINE = 2.0**-20
"""A step that is nothing beside the range it divides: as good as no rounding."""

SINGLE_BITS = 24
"""Of the significand of a float32."""


@dataclass(frozen=True, eq=False)
class Knobs:
    """The constants that set what a simulated rounding does.

    Args:
        low: Least value.
        high: Greatest value.
        step: Distance of two values; of floats, what all are multiplied with.
        divisors: What channels are divided by before and multiplied with after; None where that
            is not tried.
        of_floats: What cuts floats to bits, and to multiples of the smallest; none for integers.
    """

    low: Constant
    high: Constant
    step: Constant
    divisors: Constant | None
    of_floats: tuple[Constant, ...]

    def set_to(self, grid: ActivationGrid, divisors: Factors | None) -> list[Setting]:
        """Return the values that make it round to a grid, perhaps after a division."""
        values = (*grid.ends, float(grid.scale))
        settings = [
            (knob, np.array(value, knob.dtype))
            for knob, value in zip((self.low, self.high, self.step), values, strict=True)
        ]
        if divisors is not None and self.divisors is not None:
            settings.append((self.divisors, divisors.astype(self.divisors.dtype)))
        if self.of_floats:
            settings += zip(self.of_floats, _cutting(grid.dtype), strict=True)
        return settings


def _cutting(dtype: np.dtype[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return by what a float32 is multiplied, and what is added to it, to cut it to a type."""
    info = ml_dtypes.finfo(dtype)
    splitter = 2.0 ** (SINGLE_BITS - 1 - info.nmant) + 1
    anchor = 1.5 * 2.0 ** (SINGLE_BITS - 1) * float(info.smallest_subnormal)
    return np.array(splitter, np.float32), np.array(anchor, np.float32)


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
    if is_float(codes):
        values |= {"step": 1.0, "splitter": 1.0, "anchor": 0.0}
    low, high, step, *of_floats = (
        Constant(f"{name}.{key}", np.array(value, dtype)) for key, value in values.items()
    )
    divisors = Constant(f"{name}.divisors", np.ones(channels, dtype)) if channels else None
    made: list[Node] = []

    def add(op: str, *inputs: gs.Tensor) -> Variable:
        output = Variable(f"{name}.{len(made)}", rounded.tensor.dtype)
        made.append(Node(op, output.name, {}, [*inputs], [output]))
        return output

    divided = [] if divisors is None else [add("Div", divisors)]
    scaled = add("Div", add("Clip", *divided, low, high), step)
    if of_floats:
        splitter, anchor = of_floats
        product = add("Mul", scaled, splitter)
        short = add("Sub", product, add("Sub", product, scaled))
        nearest = add("Sub", add("Add", short, anchor), anchor)
    else:
        nearest = add("Round", scaled)
    result = add("Mul", nearest, step)
    if divisors is not None:
        result = add("Mul", result, divisors)
    placement.replace(rounded, result, made)
    return Knobs(low, high, step, divisors, tuple(of_floats))
