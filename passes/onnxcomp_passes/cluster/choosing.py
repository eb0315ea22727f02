"""Bits for each weight, so that a file of a given size loses as little as it can."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np

from onnxcomp.allocation import Option, allocate
from onnxcomp.recovery import output_costs, output_errors, support_of
from onnxcomp.statistics import Order, held_out_samples, layers, one_thread
from onnxcomp_passes.cluster.curves import (
    CHOICES,
    PROBES,
    Choice,
    Curve,
    curve_of,
    feedbacks_of,
    problem_of,
)
from onnxcomp_passes.cluster.recoding import Grid

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from onnxcomp.graph import Model, Weight
    from onnxcomp.pipeline import Context
    from onnxcomp.recovery import Feedback, Problem
    from onnxcomp.statistics import Layer
    from onnxcomp_passes.cluster.coding import Coding

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
        name = json.dumps(["costs of codings", setting, [weight.name for weight in weights]])
        measured = context.recall(name, lambda: _measured(model, weights, code, context))
        of_weights = {id(weight.tensor) for weight in weights}
        known = [
            each for each in layers(model) if each.uses and id(each.weight.tensor) in of_weights
        ]
        last = {id(layer.weight.tensor) for layer in Order(model, known).last()}
        shares = [
            1.0 if id(weight.tensor) in last or context.samples is None else LEFT
            for weight in weights
        ]
        self._options = [
            [Option(*pair) for pair in zip(sizes, np.multiply(costs, share).tolist(), strict=True)]
            for share, (sizes, costs) in zip(shares, measured, strict=True)
        ]

    @property
    def least_bytes(self) -> int:
        """Bytes that all weights take at least."""
        return sum(min(option.nbytes for option in options) for options in self._options)

    def choose(self, budget: int) -> dict[int, Choice]:
        """Choose a coding for each weight, by the identity of its constant.

        Args:
            budget: Bytes that all of them may take, `least_bytes` or more.
        """
        chosen = allocate(self._options, budget)
        assert chosen is not None  # noqa: S101 - the least fits
        return {
            id(weight.tensor): CHOICES[place]
            for weight, place in zip(self.weights, chosen, strict=True)
        }


def _measured(
    model: Model, weights: Sequence[Weight], code: Code, context: Context
) -> list[tuple[tuple[int, ...], tuple[float, ...]]]:
    """Return the bytes of each weight at each choice, and what the model's outputs lose by it."""
    found = {id(layer.weight.tensor): layer for layer in layers(model)}
    chosen = [found[id(weight.tensor)] for weight in weights]
    inputs = context.inputs_of(model, chosen)
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
    probed = [[curve.errors[CHOICES.index(each)] for each in PROBES] for curve in curves]
    losses = probed
    if context.samples is not None:
        unseen = held_out_samples(context.samples, SAMPLES)
        measured = output_errors(model, changes, unseen, context.progress)
        losses = np.reshape(measured, (-1, len(PROBES))).tolist()
    costs = output_costs([curve.errors for curve in curves], probed, losses)
    return [
        (curve.nbytes, tuple(each)) for curve, each in zip(curves, costs.tolist(), strict=True)
    ]


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
