"""Grids for what is rounded, chosen and judged by what the model then gives out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from onnxcomp.graph import copy_model
from onnxcomp.recovery import output_errors
from onnxcomp.statistics import Range, RangeWatch, held_out_samples, walk
from passes.quantize import ranges
from passes.quantize.grids import ActivationGrid
from passes.quantize.simulating import simulate

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Sequence

    from onnxcomp.graph import Model
    from onnxcomp.pipeline import Context
    from onnxcomp.runtime import Samples
    from passes.quantize.placement import Plan, Rounded

MOST_WORK = 2e9
"""Rounded elements of all trials together: with more of them, fewer samples are tried."""

LEAST_SAMPLES, MOST_SAMPLES = 2, 16

WORTHWHILE = 0.03
"""Other ranges are tried for tensors that cause this share of the error, or more."""


@dataclass(eq=False)
class Activation:
    """A tensor that is rounded, its grid and what that costs.

    Args:
        rounded: The tensor.
        observed: Its values.
        size: Elements in one sample.
        grid: The grid.
        error: Squared error of the model's outputs if nothing else is rounded, relative to their
            variance.
    """

    rounded: Rounded
    observed: Range
    size: int
    grid: ActivationGrid
    error: float = 0.0


@dataclass(frozen=True)
class Search:
    """How grids are found.

    Args:
        method: Which range: ``minmax``, ``percentile``, ``entropy``, ``mse`` or ``output``.
        dtype: The codes' type.
        share: Per cent of the values that ``percentile`` keeps.
        power_of_two: Whether scales are powers of two.
    """

    method: str
    dtype: np.dtype[Any]
    share: float = 99.99
    power_of_two: bool = False

    def grid(self, observed: Range, rounded: Rounded, method: str) -> ActivationGrid:
        """Return the grid that a method gives for what was observed."""
        if method == "minmax":
            low, high = ranges.minmax(observed)
        elif method == "percentile":
            low, high = ranges.percentile(observed, self.share)
        elif method == "entropy":
            low, high = ranges.least_divergence(observed, self.dtype)
        else:
            low, high = ranges.least_squares(observed, self.dtype)
        least, most = rounded.bounds
        return ActivationGrid.between(
            max(low, least), min(high, most), self.dtype, power_of_two=self.power_of_two
        )


def find_grids(
    model: Model, plan: Plan, search: Search, context: Context
) -> list[Activation]:
    """Observe what some layers need rounded, and find a grid for each.

    Args:
        model: The model; not changed.
        plan: Which layers compute with integers.
        search: How grids are found.
        context: Samples.
    """
    samples = context.samples
    assert samples is not None  # noqa: S101 - the caller has looked
    placement = plan.place(model)
    watches = [
        RangeWatch(each.name, (each.tensor, each.scope), Range()) for each in placement.tensors
    ]
    walk((model,), watches, samples, lambda share: context.progress(share / 2))
    found = [
        Activation(
            rounded,
            watch.range,
            watch.range.count // samples.batched(1).batches,
            search.grid(watch.range, rounded, search.method),
        )
        for rounded, watch in zip(placement.tensors, watches, strict=True)
    ]
    by_tensor = {id(each.rounded): each for each in found}
    for each in found:
        if each.rounded.source is not None:
            each.grid = by_tensor[id(each.rounded.source)].grid
    measure(model, plan, search, found, context)
    return found


def measure(
    model: Model, plan: Plan, search: Search, found: Sequence[Activation], context: Context
) -> None:
    """Measure what each rounding costs; where it is much, try other ranges and take the best.

    Args:
        model: The model; not changed.
        plan: Which layers compute with integers.
        search: How grids are found.
        found: What is rounded, in the order of the placement; its grids and errors are set.
        context: Samples.
    """
    simulated = copy_model(model)
    placement = plan.place(simulated)
    knobs = simulate(placement, [ranges.reach(each.observed) for each in found])
    wanted = [place_ for place_, each in enumerate(found) if each.rounded.source is None]
    work = len(wanted) * sum(each.size for each in found)
    most = int(np.clip(MOST_WORK / max(work, 1), LEAST_SAMPLES, MOST_SAMPLES))
    unseen = held_out_samples(context.samples, most)

    def errors(trials: Sequence[tuple[int, ActivationGrid]]) -> list[float]:
        changes = [knobs[place_].set_to(grid) for place_, grid in trials]
        return output_errors(simulated, changes, unseen, most=most)

    for place_, error in zip(wanted, errors([(each, found[each].grid) for each in wanted])):
        found[place_].error = error
    if search.method != "output":
        return
    total = sum(each.error for each in found)
    costly = [place_ for place_ in wanted if found[place_].error > WORTHWHILE * total]
    trials = [
        (place_, grid) for place_ in costly for grid in _others(found[place_], search)
    ]
    for (place_, grid), error in zip(trials, errors(trials), strict=True):
        if error < found[place_].error:
            found[place_].grid, found[place_].error = grid, error


def _others(activation: Activation, search: Search) -> Iterator[ActivationGrid]:
    """Yield grids beside that of the least squared error: between it and the extremes, and less."""
    low, high = activation.grid.ends
    least, most = ranges.minmax(activation.observed)
    bounds = activation.rounded.bounds
    for one in STEPS:
        for other in STEPS:
            if one == other == 0:
                continue
            yield ActivationGrid.between(
                max(_between(low, least, one), bounds[0]),
                min(_between(high, most, other), bounds[1]),
                search.dtype,
                power_of_two=search.power_of_two,
            )


STEPS = (0.0, 0.5, 1.0)
"""From the end of a grid (0) to the extreme that was observed (1)."""


def _between(end: float, extreme: float, step: float) -> float:
    return end + step * (extreme - end) if step > 0 else end * (1 + step)

