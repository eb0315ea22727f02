"""Repairing layer after layer, each for what it now gets."""

from __future__ import annotations

from typing import TYPE_CHECKING

from onnxcomp.statistics import (
    InputStatistics,
    layers,
    levels,
    one_thread,
    recurring,
    walk,
    watch_inputs,
)

if TYPE_CHECKING:
    from collections.abc import Callable

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
        original: A copy of the model as it was before any change of weights.
        samples: Calibration samples.
        repair: Repairs one layer.
        concerns: Which weights are repaired.
        progress: Told the share of the levels that is done.
    """
    pairs = [
        (layer, twin)
        for layer, twin in zip(layers(model), layers(original), strict=True)
        if layer.uses and concerns(layer.weight)
    ]
    twins = {id(layer): twin for layer, twin in pairs}
    concerned = [layer for layer, _ in pairs]
    found, again = levels(model, concerned), recurring(model, concerned)
    for done, level in enumerate(found):

        def tell(share: float, done: int = done) -> None:
            progress((done + share) / len(found))

        inputs: dict[int, InputStatistics] = {}
        for alone in (True, False):
            part = [layer for layer in level if (layer in again) == alone]
            originals = [twins[id(layer)] for layer in part]
            watches, observed = watch_inputs(*((originals,) if alone else (part, originals)))
            if alone:
                walk((original,), watches, samples)
            else:
                walk((model, original), watches, samples, tell)
            inputs |= {id(layer): each for layer, each in zip(part, observed, strict=True)}
        tell(1.0)
        with one_thread():
            for layer in level:
                repair(layer, twins[id(layer)], inputs[id(layer)])


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
        original: A copy of the model as it was before any change of weights.
        statistics: Of the original.
        repair: Repairs one layer.
        concerns: Which weights are repaired.
    """
    with one_thread():
        for layer, twin in zip(layers(model), layers(original), strict=True):
            if layer.uses and concerns(layer.weight):
                repair(layer, twin, statistics.of(layer))
