"""Bits for each weight, so that a file of a given size loses as little as it can."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import inf
from typing import TYPE_CHECKING, Any

import numpy as np

from onnxcomp.allocation import Option, allocate
from onnxcomp.recovery import (
    Feedback,
    Problem,
    held_out_error,
    output_errors,
    relative_error,
    support_of,
)
from onnxcomp.statistics import (
    InputStatistics,
    held_out_samples,
    layers,
    one_thread,
    walk,
    watch_inputs,
)
from onnxcomp.stores import Codebook
from passes.cluster.coding import Coding
from passes.cluster.histogram import Histogram
from passes.cluster.kmeans import cluster_points
from passes.cluster.recoding import Grid
from passes.cluster.vectors import assign_vectors, cluster_vectors

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from onnxcomp.graph import Model, Weight
    from onnxcomp.pipeline import Context
    from onnxcomp.recovery.feedback import Round
    from onnxcomp.statistics import HeldOut, Layer

    Floats = NDArray[np.float64]
    Code = Callable[[Weight, NDArray[Any], "Choice"], Coding]


@dataclass(frozen=True)
class Choice:
    """One way to code a weight.

    Args:
        bits: Bits a weight.
        width: Weights that one code stands for.
    """

    bits: int
    width: int = 1

    @property
    def entries(self) -> int:
        """Entries of the codebook."""
        return 1 << self.bits * self.width


PROBE = Choice(4)
"""The coding at which it is measured what a weight matters."""

CHOICES = (
    Choice(2),
    Choice(2, 4),
    Choice(3),
    PROBE,
    Choice(4, 2),
    Choice(5),
    Choice(6),
    Choice(8),
)
"""Codings that are weighed up; vectors cost a larger codebook."""

SAMPLES = 16
"""Samples, or complete feeds, on which it is measured what a weight matters."""

ROWS = 512
"""Outputs of a layer on which the error at each number of bits is measured."""


@dataclass(frozen=True)
class Curve:
    """What one weight takes and costs at each of `CHOICES`.

    Args:
        nbytes: Bytes in the file.
        errors: Squared error relative to the outputs of the layer, or to the weight where they
            are not known.
    """

    nbytes: tuple[int, ...]
    errors: tuple[float, ...]

    def options(self, lost: float) -> list[Option]:
        """Return the choices as the allocation takes them.

        Args:
            lost: What the model's outputs lose where this weight has `PROBE` bits.
        """
        at_probe = self.errors[CHOICES.index(PROBE)] or 1.0
        # A weight that costs nothing is still not cut into vectors that do not fit it.
        costs = (error if error == inf else lost * error / at_probe for error in self.errors)
        return [Option(*pair) for pair in zip(self.nbytes, costs, strict=True)]


class Allotment:
    """Measured curves of several weights, from which bits are chosen for any budget.

    Errors of layers are those after error feedback, on a part of their outputs and on held-out
    columns: feedback from few columns looks perfect on those. What they mean
    for the model is measured by running it with one weight at a time coded coarsely; from there
    the loss is taken to grow as the layer's own error does.

    Args:
        model: The model, before anything is clustered.
        weights: Weights of it that will be clustered.
        code: Codes values of a weight, without data, at some bits.
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
        context: Context,
    ) -> None:
        self.weights = weights
        found = {id(layer.weight.tensor): layer for layer in layers(model)}
        chosen = [found[id(weight.tensor)] for weight in weights]
        inputs = _inputs(model, chosen, context)
        self._curves, probes = [], []
        with one_thread():
            for place, (layer, observed) in enumerate(zip(chosen, inputs, strict=True)):
                problem = _problem(layer, observed)
                self._curves.append(_curve(layer.weight, problem, observed.held_out))
                if context.samples is not None:
                    probes.append(_probe(layer, problem, code))
                context.progress((place + 1) / len(chosen))
        self._losses = [curve.errors[CHOICES.index(PROBE)] for curve in self._curves]
        if context.samples is not None:
            changes = [
                [(weight.tensor, probe)] for weight, probe in zip(weights, probes, strict=True)
            ]
            unseen = held_out_samples(context.samples, SAMPLES)
            measured = output_errors(model, changes, unseen, context.progress)
            self._losses = _with_unseen(measured, self._losses)

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


def _problem(layer: Layer, inputs: InputStatistics) -> Problem | None:
    moments = inputs.fit
    if moments is None:
        return None
    # Not centred: the probe has nothing to correct its mean with.
    return Problem.of(layer.form.to_matrices(layer.weight.load()), moments, shifts=False)


def _curve(weight: Weight, problem: Problem | None, held_out: HeldOut | None) -> Curve:
    sizes = tuple(_stored_bytes(weight, choice) for choice in CHOICES)
    if problem is None:
        rows = np.moveaxis(weight.load(), weight.output_axis, 0)
        rows = rows.reshape(len(rows), -1)[:: max(1, len(rows) // (8 * ROWS))].astype(np.float64)
        return Curve(sizes, tuple(_rounding_error(rows, choice) for choice in CHOICES))
    step = max(1, problem.weights.shape[1] // ROWS)
    part = replace(problem, weights=problem.weights[:, ::step])
    return Curve(sizes, _feedback_errors(part, held_out))


def _feedback_errors(problem: Problem, held_out: HeldOut | None) -> tuple[float, ...]:
    """Return the error at each choice, on columns that the feedback has not seen if it can be."""
    none = np.zeros(problem.weights.shape[:2])
    support = support_of(problem.weights)
    feedbacks: dict[int, list[Feedback]] = {}
    errors = []
    for choice in CHOICES:
        width = choice.width
        if problem.weights.shape[2] % width:
            errors.append(inf)
            continue
        if width not in feedbacks:
            feedbacks[width] = [Feedback(damped, width) for damped in problem.damped]
        scale, rounded = _grid(problem.weights, choice)
        stays = [None] * len(none) if support is None or width > 1 else support
        trios = zip(feedbacks[width], problem.weights / scale, stays, strict=True)
        found = np.stack([each.round(scaled, rounded, stay) for each, scaled, stay in trios])
        if held_out is None:
            errors.append(problem.error(found * scale))
        else:
            errors.append(held_out_error(problem.weights, found * scale, none, held_out))
    return tuple(errors)


def _rounding_error(rows: Floats, choice: Choice) -> float:
    if rows.shape[1] % choice.width:
        return inf
    scale, rounded = _grid(rows, choice)
    columns = (rows / scale).reshape(-1, choice.width).T.astype(np.float32)
    found = rounded(columns, np.eye(choice.width, dtype=np.float32)).T.reshape(rows.shape)
    return relative_error(rows, found * scale) ** 2


def _grid(weights: Floats, choice: Choice) -> tuple[Floats, Round]:
    """Return a scale for each output, and what rounds scaled columns to a good codebook."""
    scale = np.sqrt(np.mean(np.square(weights), axis=-1, keepdims=True))
    scale = np.where(scale > 0, scale, 1.0)
    if choice.width > 1:
        vectors = (weights / scale).reshape(-1, choice.width)
        book = cluster_vectors(vectors, choice.entries)
        return (
            scale,
            lambda columns, metric: book[assign_vectors((metric @ columns).T, book @ metric.T)].T,
        )
    histogram = Histogram()
    histogram.add(weights / scale, np.square(scale))
    entries = cluster_points(*histogram.points(), choice.entries).astype(np.float32)
    limits = (entries[1:] + entries[:-1]) / 2
    return scale, lambda columns, _: entries[np.searchsorted(limits, columns)]


def _probe(layer: Layer, problem: Problem | None, code: Code) -> NDArray[Any]:
    """Return a weight as it is with `PROBE` bits."""
    values = layer.weight.load()
    coding = code(layer.weight, values, PROBE)
    if problem is not None:
        grid = Grid(coding, layer.form, values.dtype)
        feedbacks = [Feedback(each) for each in problem.damped]
        coding = grid.recode(problem.weights, feedbacks, support_of(problem.weights))
    return coding.decoded(values)


def _stored_bytes(weight: Weight, choice: Choice) -> int:
    """Return what a weight takes in the file with a scale for each output."""
    if weight.size % choice.width:
        return int(weight.tensor.nbytes)
    channels = [1] * len(weight.shape)
    channels[weight.output_axis] = weight.shape[weight.output_axis]
    values = weight.load()
    # Zeros that a store may leave out are those of the weight.
    is_zero = ~(values.reshape(-1, choice.width) != 0).any(axis=1)
    entries = np.ones((choice.entries, choice.width), np.float32)
    entries[0] = 0
    coding = Coding(
        (~is_zero).astype(np.uint8), Codebook(entries), scale=np.ones(channels, np.float16)
    )
    return coding.store(values, weight.opset, ()).added_bytes(())
