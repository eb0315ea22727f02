"""Grids for what is rounded, chosen and judged by what the model then gives out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from onnxcomp.graph import copy_model
from onnxcomp.layerwise import output_errors
from onnxcomp.statistics import Range, RangeWatch, held_out_samples, layers, walk
from onnxcomp_passes.quantize import ranges
from onnxcomp_passes.quantize.grids import ActivationGrid
from onnxcomp_passes.quantize.simulating import simulate
from onnxcomp_passes.quantize.smoothing import factors, smoothed_ends, smooths

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from onnxcomp.graph import Model
    from onnxcomp.pipeline import Context
    from onnxcomp.statistics import Layer
    from onnxcomp_passes.quantize.placement import Placement, Plan, Rounded
    from onnxcomp_passes.quantize.smoothing import Factors

    Trial = tuple[int, ActivationGrid, Factors | None]

MOST_WORK = 2e9
"""Rounded elements of all trials together: with more of them, fewer samples are tried."""

LEAST_SAMPLES, MOST_SAMPLES = 6, 16

STEPS = (0.0, 0.5, 1.0)
"""From the end of a grid (0) to the extreme that was observed (1)."""

SHARES = (1.0, 0.6)
"""Parts of the full range that are tried of divided channels."""

PARTS = (0.3, 0.6, 1.0)
"""Of the progress: when observing is done, when the first grids are measured, and all."""

CLEARLY = 0.8
"""Another range has to leave this part of the error, or less: few samples tell no finer."""

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
        readers: The layers that read it rounded, where it may be smoothed for them.
        divisors: What its channels are divided by before; None for nothing.
        error: Squared error of the model's outputs if nothing else is rounded, relative to their
            variance.
    """

    rounded: Rounded
    observed: Range
    size: int
    grid: ActivationGrid
    readers: list[Layer]
    divisors: Factors | None = None
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

    def grid(self, observed: Range, rounded: Rounded) -> ActivationGrid:
        """Return the grid that the method gives; the one that ``output`` starts from."""
        if self.method == "minmax":
            low, high = ranges.minmax(observed)
        elif self.method == "percentile":
            low, high = ranges.percentile(observed, self.share)
        elif self.method == "entropy":
            low, high = ranges.least_divergence(observed, self.dtype)
        else:
            low, high = ranges.least_squares(observed, self.dtype)
        least, most = rounded.bounds
        return self.between(max(low, least), min(high, most))

    def between(self, low: float, high: float) -> ActivationGrid:
        """Return the grid with about these ends."""
        return ActivationGrid.between(low, high, self.dtype, power_of_two=self.power_of_two)


def find_grids(model: Model, plan: Plan, search: Search, context: Context) -> list[Activation]:
    """Observe what some layers need rounded, and find a grid for each.

    Args:
        model: The model; not changed.
        plan: Which layers compute with integers.
        search: How grids are found.
        context: Samples; with statistics alone, nothing is measured.
    """
    placement = plan.place(model)
    observed = _observed(model, placement, context)
    batches = 1 if context.samples is None else context.samples.batched(1).batches
    by_key = {layer.key: layer for layer in layers(model)}
    found = []
    for rounded, seen in zip(placement.tensors, observed, strict=True):
        readers = [by_key[key] for key in dict.fromkeys(rounded.keys)]
        found.append(
            Activation(
                rounded,
                seen,
                seen.count // batches,
                search.grid(seen, rounded),
                readers if search.method == "output" and smooths(rounded, readers, seen) else [],
            )
        )
    if context.samples is not None:
        _measure(model, plan, search, found, context)
    by_tensor = {id(each.rounded): each for each in found}
    for each in found:
        origin = each
        while origin.rounded.source is not None:
            origin = by_tensor[id(origin.rounded.source)]
        # What is divided for its own readers is passed on as it was.
        each.grid = each.grid if origin.divisors is not None else origin.grid
    return found


def _observed(model: Model, placement: Placement, context: Context) -> list[Range]:
    """Return the values of what is rounded; empty ranges where nothing was observed."""
    if context.samples is not None:
        watches = [
            RangeWatch(each.name, (each.tensor, each.scope), Range()) for each in placement.tensors
        ]
        told = context.part(0, PARTS[0])
        walk((model,), watches, context.samples, told.progress)
        return [watch.range for watch in watches]
    assert context.statistics is not None  # noqa: S101 - the caller has looked
    known = context.statistics.ranges
    # An activation that no layer reads is known before its Relu, whose bounds a grid keeps to.
    return [
        known.get(each.name) or known.get(each.source_name) or Range()
        for each in placement.tensors
    ]


def _measure(
    model: Model, plan: Plan, search: Search, found: Sequence[Activation], context: Context
) -> None:
    """Measure what each rounding costs; where it is much, try others and take the best.

    Args:
        model: The model; not changed.
        plan: Which layers compute with integers.
        search: How grids are found.
        found: What is rounded, in the order of the placement; grids and errors are set.
        context: Samples.
    """
    simulated = copy_model(model)
    knobs = simulate(
        plan.place(simulated),
        [ranges.reach(each.observed) for each in found],
        [len(each.observed.channels) if each.readers else 0 for each in found],
        search.dtype,
    )
    size = sum(each.size for each in found)

    def errors(trials: Sequence[Trial], start: float, stop: float) -> list[float]:
        changes = [knobs[place].set_to(grid, divisors) for place, grid, divisors in trials]
        most = int(np.clip(MOST_WORK / max(size * len(trials), 1), LEAST_SAMPLES, MOST_SAMPLES))
        assert context.samples is not None  # noqa: S101 - the caller has looked
        return output_errors(
            simulated,
            changes,
            held_out_samples(context.samples, most),
            lambda share: context.progress(start + share * (stop - start)),
            most=most,
        )

    own = [place for place, each in enumerate(found) if each.rounded.source is None]
    first = errors([(place, found[place].grid, None) for place in own], *PARTS[:2])
    for place, error in zip(own, first, strict=True):
        found[place].error = error
    if search.method != "output":
        return
    total = sum(first)
    costly = [place for place in own if found[place].error > WORTHWHILE * total]
    trials = [
        (place, grid, divisors)
        for place in costly
        for grid, divisors in _others(found[place], search)
    ]
    for (place, grid, divisors), error in zip(trials, errors(trials, *PARTS[1:]), strict=True):
        each = found[place]
        if error < CLEARLY * each.error:
            each.grid, each.divisors, each.error = grid, divisors, error


def _others(
    activation: Activation, search: Search
) -> Iterator[tuple[ActivationGrid, Factors | None]]:
    """Yield grids beside that of the least squared error, and grids of divided channels."""
    low, high = activation.grid.ends
    least, most = ranges.minmax(activation.observed)
    start, end = activation.rounded.bounds
    for one in STEPS:
        for other in STEPS:
            if one or other:
                ends = low + one * (least - low), high + other * (most - high)
                yield search.between(max(ends[0], start), min(ends[1], end)), None
    if activation.readers:
        for divisors in factors(activation.observed, activation.readers):
            ends = smoothed_ends(activation.observed, divisors)
            for share in SHARES:
                yield search.between(ends[0] * share, ends[1] * share), divisors
