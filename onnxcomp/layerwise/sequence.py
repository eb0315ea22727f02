"""Repairing layer after layer, each for what it now gets."""

from __future__ import annotations

import logging
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from onnxcomp.layerwise.portions import observed, portions
from onnxcomp.statistics import (
    InputStatistics,
    Order,
    Relay,
    layers,
    one_thread,
    walk,
    watch_inputs,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from onnxcomp.graph import Model, Weight
    from onnxcomp.pipeline import Context
    from onnxcomp.runtime import Samples
    from onnxcomp.statistics import Layer

    Repair = Callable[[Layer, Layer, InputStatistics], None]
    """Called with a layer, the same layer of the original, and what the former multiplies."""


LOG = logging.getLogger("onnxcomp.layerwise")


def repair_layers(
    model: Model,
    original: Model,
    repair: Repair,
    *,
    context: Context,
    sequential: bool,
    concerns: Callable[[Weight], bool],
) -> None:
    """Repair layers by what there is: by samples, or else by statistics; without either, none.

    Args:
        model: The model; ``repair`` changes it.
        original: The model as it was before any change of weights.
        repair: Repairs one layer.
        context: Samples, or statistics of the original.
        sequential: Whether samples are for one layer after the other, each for what it now gets;
            if not, and by statistics, each is repaired as if those before were unchanged.
        concerns: Which weights are repaired.
    """
    if context.samples is None and context.statistics is None:
        return
    pairs = list(_pairs(model, original, concerns))
    if context.samples is not None and sequential:
        _repair_in_sequence(
            model, original, pairs, repair, samples=context.samples, progress=context.progress
        )
        return
    found = {id(twin): layer for layer, twin in pairs}
    with one_thread():
        for twin, inputs in observed(original, [twin for _, twin in pairs], context):
            repair(found[id(twin)], twin, inputs)


def _repair_in_sequence(
    model: Model,
    original: Model,
    pairs: Sequence[tuple[Layer, Layer]],
    repair: Repair,
    *,
    samples: Samples,
    progress: Callable[[float], None],
) -> None:
    """Repair layers level by level, so that each makes up for the errors of those before.

    Every level is observed anew, with all earlier repairs in effect, beside the original. No two
    layers of a level depend on each other: if both were repaired for one error upstream, it would
    be made up for twice. So would it be if a layer that depends on itself, by a later use or by
    recurrence, were repaired for what it now gets: it is repaired for what the original gives it.
    """
    twins = {id(layer): twin for layer, twin in pairs}
    orders = [
        Order(model, [each[0] for each in pairs]),
        Order(original, [each[1] for each in pairs]),
    ]
    known = _of_recurring(original, orders[0].recurring(), twins, samples)
    settled = orders[0].settled()
    levels = {
        number: list(portions(level, sides=2)) for number, level in orders[0].levels().items()
    }
    count, done = sum(map(len, levels.values())), 0
    with TemporaryDirectory(prefix="onnxcomp-") as folder:
        relay = Relay(Path(folder), samples.batched(1).batches, (model, original))
        for number, parts in levels.items():
            LOG.debug("level %d of layers, in %d portions", number, len(parts))
            keeper = relay.keeper([order.frontier(number) for order in orders])
            for place, part in enumerate(parts):
                watched = [layer for layer in part if id(layer) not in known]
                beside = [twins[id(layer)] for layer in watched]
                watches, inputs = watch_inputs(watched, beside, settled)
                walk(
                    (model, original),
                    # What comes before the level is the same in each of its walks.
                    watches if place else [*watches, keeper],
                    samples,
                    lambda share, done=done: progress((done + share) / count),  # type: ignore[misc]
                    relay.starts,
                )
                found = dict(zip(map(id, watched), inputs, strict=True)) | known
                done += 1
                if place == len(parts) - 1:
                    relay.advance(keeper)
                with one_thread():
                    for layer in part:
                        repair(layer, twins[id(layer)], found[id(layer)])


def _of_recurring(
    original: Model, recurring: Sequence[Layer], twins: Mapping[int, Layer], samples: Samples
) -> dict[int, InputStatistics]:
    """Observe what the original gives to layers that depend on themselves."""
    watches, inputs = watch_inputs([twins[id(layer)] for layer in recurring])
    walk((original,), watches, samples)
    return dict(zip(map(id, recurring), inputs, strict=True))


def _pairs(
    model: Model, original: Model, concerns: Callable[[Weight], bool]
) -> Iterator[tuple[Layer, Layer]]:
    """Yield layers that are repaired, each with the same layer of the original."""
    twins = {layer.key: layer for layer in layers(original)}
    for layer in layers(model):
        if layer.uses and concerns(layer.weight):
            yield layer, twins[layer.key]
