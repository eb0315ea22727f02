"""Ranks over all layers, so that a budget is kept and as little as possible is lost."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from onnxcomp.allocation import Option, allocate
from onnxcomp.layerwise import SAMPLES, output_errors
from onnxcomp.statistics import held_out_samples

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from onnxcomp.graph import Model
    from onnxcomp.pipeline import Context
    from onnxcomp_passes.factorize.menus import Probe, Variant
    from onnxcomp_passes.factorize.sites import Site

    Menus = Mapping[int, Sequence[Variant]]
    Cost = Callable[[Site, Variant | None], int]
    """What a layer takes of the budget as a variant of itself, or as it is."""


def losses(
    model: Model, sites: Sequence[Site], probes: Mapping[int, Probe], context: Context
) -> list[float]:
    """Return for each layer what the outputs lose, divided by the layer's own squared error.

    It is measured with one layer at a time off by a known error; without samples it is 1.

    Args:
        model: The model; not changed.
        sites: The layers.
        probes: By the identity of the weight's constant.
        context: Samples.
    """
    if context.samples is None:
        return [1.0] * len(sites)
    own = [probes[id(site.weight.tensor)] for site in sites]
    changes = [
        [(site.weight.tensor, probe.values)] for site, probe in zip(sites, own, strict=True)
    ]
    unseen = held_out_samples(context.samples, SAMPLES)
    measured = output_errors(model, changes, unseen, context.progress)
    ratios = [
        lost / probe.error if probe.error > 0 else 0.0
        for lost, probe in zip(measured, own, strict=True)
    ]
    seen = [each for each in ratios if each > 0]
    typical = float(np.median(seen)) if seen else 1.0
    # What no sample needs counts like the median.
    return [each if each > 0 else typical for each in ratios]


def choose(
    sites: Sequence[Site],
    menus: Menus,
    sensitivities: Sequence[float],
    cost: Cost,
    *,
    budget: int,
    held: int,
) -> list[Variant | None]:
    """Choose a variant for each layer, or None where it stays as it is.

    Args:
        sites: The layers.
        menus: What each could become, by the identity of its weight's constant.
        sensitivities: What the outputs lose by each for its own squared error.
        cost: What a layer takes of the budget.
        budget: What all may take, and those that have no choice.
        held: What those take.

    Raises:
        ValueError: No choice is within the budget; the message says what the least of all is.
    """
    lists = [[None, *menus[id(site.weight.tensor)]] for site in sites]
    options = [
        [
            Option(cost(site, one), 0.0 if one is None else sensitivity * one.error)
            for one in variants
        ]
        for site, variants, sensitivity in zip(sites, lists, sensitivities, strict=True)
    ]
    chosen = allocate(options, budget - held)
    if chosen is None:
        least = held + sum(min(option.nbytes for option in each) for each in options)
        raise ValueError(str(least))
    return [variants[place] for variants, place in zip(lists, chosen, strict=True)]
