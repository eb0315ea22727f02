"""Bits for each weight, so that a file of a given size loses as little as it can."""

from __future__ import annotations

import json
from math import inf
from typing import TYPE_CHECKING, Any

import numpy as np

from onnxcomp.allocation import allocate
from onnxcomp.recovery import output_errors, support_of
from onnxcomp.statistics import (
    InputStatistics,
    Order,
    held_out_samples,
    layers,
    one_thread,
    walk,
    watch_inputs,
)
from passes.cluster.curves import (
    CHOICES,
    PROBES,
    Choice,
    Curve,
    curve_of,
    feedbacks_of,
    problem_of,
)
from passes.cluster.recoding import Grid

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from onnxcomp.graph import Model, Weight
    from onnxcomp.pipeline import Context
    from onnxcomp.recovery import Feedback, Problem
    from onnxcomp.statistics import Layer
    from passes.cluster.coding import Coding

    Floats = NDArray[np.float64]
    Code = Callable[[Weight, NDArray[Any], "Choice"], Coding]


LEFT = 0.2
"""Share of what a weight alone costs that is left when later layers have made up for it."""

SAMPLES = 16
"""Samples, or complete feeds, on which it is measured what a weight matters."""


class Allotment:
    """Measured curves of several weights, from which bits are chosen for any budget.

    Errors of layers are those after error feedback, on a part of their outputs and on held-out
    columns: feedback from few columns looks perfect on those. What they mean
    for the model is measured by running it with one weight at a time coded coarsely, at two
    numbers of bits.

    Args:
        model: The model, before anything is clustered.
        weights: Weights of it that will be clustered.
        code: Codes values of a weight, without data, at some bits.
        setting: Says how, for what is recalled.
        context: Samples, or statistics of the model; without either, errors of the weights stand
            for those of the outputs.

    Attributes:
        weights: The same.
    """

    def __init__(
        self,
        model: Model,
        weights: Sequence[Weight],
        code: Code,
        setting: str,
        context: Context,
    ) -> None:
        self.weights = weights
        name = json.dumps(["allotment", setting, [weight.name for weight in weights]])
        measured = context.recall(name, lambda: _measured(model, weights, code, context))
        self._curves = [Curve(tuple(sizes), tuple(errors)) for sizes, errors, _ in measured]
        of_weights = {id(weight.tensor) for weight in weights}
        known = [
            each for each in layers(model) if each.uses and id(each.weight.tensor) in of_weights
        ]
        last = {id(layer.weight.tensor) for layer in Order(model, known).last()}
        shares = [
            1.0 if id(weight.tensor) in last or context.samples is None else LEFT
            for weight in weights
        ]
        self._losses = [
            [share * each for each in lost]
            for share, (_, _, lost) in zip(shares, measured, strict=True)
        ]

    @property
    def least_bytes(self) -> int:
        """Bytes that all weights take at least."""
        return sum(min(curve.nbytes) for curve in self._curves)

    def choose(self, budget: int) -> dict[int, Choice]:
        """Choose a coding for each weight, by the identity of its constant.

        Args:
            budget: Bytes that all of them may take, `least_bytes` or more.
        """
        options = [
            curve.options(lost) for curve, lost in zip(self._curves, self._losses, strict=True)
        ]
        chosen = allocate(options, budget)
        assert chosen is not None  # noqa: S101 - the least fits
        return {
            id(weight.tensor): CHOICES[place]
            for weight, place in zip(self.weights, chosen, strict=True)
        }


def _measured(
    model: Model, weights: Sequence[Weight], code: Code, context: Context
) -> list[tuple[tuple[int, ...], tuple[float, ...], tuple[float, ...]]]:
    """Return the bytes and errors of each weight at each choice, and what it means at `PROBES`."""
    found = {id(layer.weight.tensor): layer for layer in layers(model)}
    chosen = [found[id(weight.tensor)] for weight in weights]
    inputs = _inputs(model, chosen, context)
    curves: list[Curve] = []
    changes = []
    with one_thread():
        for place, (layer, observed) in enumerate(zip(chosen, inputs, strict=True)):
            problem = problem_of(layer, observed)
            feedbacks = [] if problem is None else feedbacks_of(problem)
            curves.append(curve_of(layer.weight, problem, feedbacks, observed.held_out))
            if context.samples is not None:
                probes = [_probe(layer, problem, feedbacks, code, each) for each in PROBES]
                changes += [[(layer.weight.tensor, probe)] for probe in probes]
            context.progress((place + 1) / len(chosen))
    losses = [tuple(curve.errors[CHOICES.index(each)] for each in PROBES) for curve in curves]
    if context.samples is not None:
        unseen = held_out_samples(context.samples, SAMPLES)
        measured = output_errors(model, changes, unseen, context.progress)
        by_probe = [
            _with_unseen(measured[place :: len(PROBES)], [each[place] for each in losses])
            for place in range(len(PROBES))
        ]
        losses = list(zip(*by_probe, strict=True))
    return [(curve.nbytes, curve.errors, lost) for curve, lost in zip(curves, losses, strict=True)]


def _with_unseen(losses: Sequence[float], errors: Sequence[float]) -> list[float]:
    """Return losses of the model; a weight that no sample needs counts like the median one.

    Args:
        losses: What the model lost by each weight.
        errors: The layers' own errors, by which that goes.
    """
    pairs = list(zip(losses, errors, strict=True))
    ratios = [loss / error for loss, error in pairs if 0 < loss < inf and 0 < error < inf]
    typical = float(np.median(ratios)) if ratios else 1.0
    return [loss if loss > 0 else typical * error for loss, error in pairs]


def _inputs(model: Model, chosen: Sequence[Layer], context: Context) -> list[InputStatistics]:
    if context.samples is not None:
        watches, inputs = watch_inputs(chosen)
        walk((model,), watches, context.samples, context.progress)
        return inputs
    known = context.statistics
    return [InputStatistics() if known is None else known.of(layer) for layer in chosen]


def _probe(
    layer: Layer,
    problem: Problem | None,
    feedbacks: Sequence[Feedback],
    code: Code,
    choice: Choice,
) -> NDArray[Any]:
    """Return a weight as it is when it is coded so."""
    values = layer.weight.load()
    coding = code(layer.weight, values, choice)
    if problem is not None:
        grid = Grid(coding, layer.form, values.dtype)
        coding = grid.recode(problem.weights, feedbacks, support_of(problem.weights))
    return coding.decoded(values)
