"""Repairing layer after layer, each for what it now gets."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from onnxcomp.statistics import (
    InputStatistics,
    Order,
    Relay,
    layers,
    observe,
    one_thread,
    walk,
    watch_inputs,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from onnxcomp.graph import Model, Weight
    from onnxcomp.runtime import Samples
    from onnxcomp.statistics import Layer, Statistics

    Repair = Callable[[Layer, Layer, InputStatistics], None]
    """Called with a layer, the same layer of the original, and what the former multiplies."""


def repair_in_sequence(
    model: Model,
    original: Model,
    samples: Samples,
    repair: Repair,
    *,
    concerns: Callable[[Weight], bool],
    progress: Callable[[float], None],
) -> None:
    """Repair layers level by level, so that each makes up for the errors of those before.

    Every level is observed anew, with all earlier repairs in effect, beside the original. No two
    layers of a level depend on each other: if both were repaired for one error upstream, it would
    be made up for twice. So would it be if a layer that depends on itself, by a later use or by
    recurrence, were repaired for what it now gets: it is repaired for what the original gives it.

    Args:
        model: The model; ``repair`` changes it.
        original: The model as it was before any change of weights.
        samples: Calibration samples.
        repair: Repairs one layer.
        concerns: Which weights are repaired.
        progress: Told the share of the levels that is done.
    """
    pairs = list(_pairs(model, original, concerns))
    twins = {id(layer): twin for layer, twin in pairs}
    orders = [
        Order(model, [each[0] for each in pairs]),
        Order(original, [each[1] for each in pairs]),
    ]
    inputs = _of_recurring(original, orders[0].recurring(), twins, samples)
    levels, settled = orders[0].levels(), orders[0].settled()
    with TemporaryDirectory(prefix="onnxcomp-") as folder:
        relay = Relay(Path(folder), samples.batched(1).batches, (model, original))
        for done, (number, level) in enumerate(levels.items()):
            part = [layer for layer in level if id(layer) not in inputs]
            originals = [twins[id(layer)] for layer in part]
            watches, observed = watch_inputs(part, originals, settled)
            keeper = relay.keeper([order.frontier(number) for order in orders])
            walk(
                (model, original),
                [*watches, keeper],
                samples,
                lambda share, done=done: progress((done + share) / len(levels)),  # type: ignore[misc]
                relay.starts,
            )
            relay.advance(keeper)
            found = dict(zip(map(id, part), observed, strict=True)) | inputs
            with one_thread():
                for layer in level:
                    repair(layer, twins[id(layer)], found[id(layer)])


def _of_recurring(
    original: Model, recurring: Sequence[Layer], twins: Mapping[int, Layer], samples: Samples
) -> dict[int, InputStatistics]:
    """Observe what the original gives to layers that depend on themselves."""
    watches, observed = watch_inputs([twins[id(layer)] for layer in recurring])
    walk((original,), watches, samples)
    return dict(zip(map(id, recurring), observed, strict=True))


def repair_layers(
    model: Model,
    original: Model,
    repair: Repair,
    *,
    samples: Samples | None,
    statistics: Statistics | None,
    sequential: bool,
    concerns: Callable[[Weight], bool],
    progress: Callable[[float], None],
) -> None:
    """Repair layers by what there is: by samples, or else by statistics; without either, none.

    Args:
        model: The model; ``repair`` changes it.
        original: The model as it was before any change of weights.
        repair: Repairs one layer.
        samples: Calibration samples.
        statistics: Of the original.
        sequential: Whether samples are for one layer after the other, each for what it now gets.
        concerns: Which weights are repaired.
        progress: Told the share that is done.
    """
    if samples is not None and sequential:
        repair_in_sequence(model, original, samples, repair, concerns=concerns, progress=progress)
        return
    if samples is not None:
        statistics = observe(original, samples, progress)
    if statistics is not None:
        repair_at_once(model, original, statistics, repair, concerns=concerns)


def repair_at_once(
    model: Model,
    original: Model,
    statistics: Statistics,
    repair: Repair,
    *,
    concerns: Callable[[Weight], bool],
) -> None:
    """Repair layers by statistics of the original, each as if those before were unchanged.

    Args:
        model: The model; ``repair`` changes it.
        original: The model as it was before any change of weights.
        statistics: Of the original.
        repair: Repairs one layer.
        concerns: Which weights are repaired.
    """
    with one_thread():
        for layer, twin in _pairs(model, original, concerns):
            repair(layer, twin, statistics.of(layer))


def _pairs(
    model: Model, original: Model, concerns: Callable[[Weight], bool]
) -> Iterator[tuple[Layer, Layer]]:
    """Yield layers that are repaired, each with the same layer of the original."""
    twins = {layer.key: layer for layer in layers(original)}
    for layer in layers(model):
        if layer.uses and concerns(layer.weight):
            yield layer, twins[layer.key]
