"""Ranks over all layers, so that a budget is kept and as little as possible is lost."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from onnxcomp.allocation import Option, allocate
from onnxcomp.recovery import output_errors
from onnxcomp.statistics import held_out_samples

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

    from onnxcomp.graph import Model
    from onnxcomp.pipeline import Context
    from passes.factorize.menus import Variant
    from passes.factorize.sites import Site

    Menus = Mapping[int, Sequence[Variant]]
    Cost = Callable[[Site, Variant | None], int]
    """What a layer takes of the budget as a variant of itself, or as it is."""

SAMPLES = 16
"""Samples, or complete feeds, on which it is measured what a layer matters."""


def losses(model: Model, sites: Sequence[Site], menus: Menus, context: Context) -> list[float]:
    """Return for each layer what the outputs lose, divided by the layer's own squared error.

    It is measured with one layer at a time at its middle variant, of plain weights; without
    samples it is 1.

    Args:
        model: The model; not changed.
        sites: The layers.
        menus: What each could become, by the identity of its weight's constant.
        context: Samples.
    """
    if context.samples is None:
        return [1.0] * len(sites)
    changes, errors = [], []
    for site in sites:
        variants = sorted(menus[id(site.weight.tensor)], key=lambda each: each.error)
        probe, error = _probe(site, variants[len(variants) // 2])
        changes.append([(site.weight.tensor, probe)])
        errors.append(error)
    unseen = held_out_samples(context.samples, SAMPLES)
    measured = output_errors(model, changes, unseen, context.progress)
    ratios = [
        lost / error if error > 0 else 0.0 for lost, error in zip(measured, errors, strict=True)
    ]
    seen = [each for each in ratios if each > 0]
    typical = float(np.median(seen)) if seen else 1.0
    # What no sample needs counts like the median.
    return [each if each > 0 else typical for each in ratios]


def _probe(site: Site, variant: Variant) -> tuple[NDArray[Any], float]:
    """Return a weight that is off by about as much as a variant, and by how much."""
    weights = site.form.to_matrices(site.weight.load()).astype(np.float64)
    solved = variant.choice.solve(site, weights, [None] * len(weights))
    dense = site.form.to_tensor(solved.dense).astype(site.weight.dtype)
    return dense, variant.error


def choose(
    sites: Sequence[Site],
    menus: Menus,
    sensitivities: Sequence[float],
    cost: Cost,
    budget: int,
) -> list[Variant | None]:
    """Choose a variant for each layer, or None where it stays as it is.

    Args:
        sites: The layers.
        menus: What each could become, by the identity of its weight's constant.
        sensitivities: What the outputs lose by each for its own squared error.
        cost: What a layer takes of the budget.
        budget: What all may take.

    Raises:
        ValueError: No choice is within the budget; the message says what the least is.
    """
    lists = [[None, *menus[id(site.weight.tensor)]] for site in sites]
    options = [
        [
            Option(cost(site, one), 0.0 if one is None else sensitivity * one.error)
            for one in variants
        ]
        for site, variants, sensitivity in zip(sites, lists, sensitivities, strict=True)
    ]
    chosen = allocate(options, budget)
    if chosen is None:
        least = sum(min(option.nbytes for option in each) for each in options)
        raise ValueError(str(least))
    return [variants[place] for variants, place in zip(lists, chosen, strict=True)]
