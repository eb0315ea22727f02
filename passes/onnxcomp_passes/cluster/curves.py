"""What a weight takes and costs at each number of bits."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import gcd, inf
from typing import TYPE_CHECKING

import numpy as np

from onnxcomp.recovery import (
    Feedback,
    Problem,
    held_out_error,
    relative_error,
    support_of,
)
from onnxcomp.stores import Codebook
from onnxcomp_passes.cluster.coding import Coding
from onnxcomp_passes.cluster.histogram import Histogram
from onnxcomp_passes.cluster.kmeans import cluster_points
from onnxcomp_passes.cluster.vectors import assign_vectors, cluster_vectors

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from onnxcomp.graph import Weight
    from onnxcomp.recovery.feedback import Round
    from onnxcomp.statistics import HeldOut, InputStatistics, Layer
    from onnxcomp_passes.cluster.method import Codebooks

    Floats = NDArray[np.float64]


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

    def of(self, codebooks: Codebooks) -> Codebooks:
        """Return codebooks of this choice, and of the same kind else."""
        return replace(codebooks, bits=self.bits, width=self.width)


PROBES = (Choice(4), Choice(2))
"""The codings at which it is measured what a weight matters, the finer one first."""

CHOICES = (
    Choice(2),
    Choice(2, 4),
    Choice(3),
    Choice(4),
    Choice(4, 2),
    Choice(5),
    Choice(6),
    Choice(8),
)
"""Codings that are weighed up; vectors cost a larger codebook."""

FINEST = Choice(5)
"""The finest coding whose error is measured: of finer ones it follows the law of high resolution
(Panter & Dite, "Quantization distortion in pulse-count modulation with nonuniform spacing of
levels", 1951)."""

POINTS = 1024
"""Groups of values from which codebooks are made that only tell an error."""

ROWS = 128
"""Outputs of a layer on which the error at each number of bits is measured."""

VECTORS = 8192
"""Vectors that a codebook is made of; from fewer it would look better than it is."""


def problem_of(layer: Layer, inputs: InputStatistics) -> Problem | None:
    """Return a layer's weights with what they multiply; None where that is not known."""
    moments = inputs.fit
    if moments is None:
        return None
    # Not centred: the probe has nothing to correct its mean with.
    return Problem.of(layer.form.to_matrices(layer.weight.load()), moments, shifts=False)


def feedbacks_of(problem: Problem) -> list[Feedback]:
    """Return what rounds each group's weights, one at a time or several: one order for all."""
    together = gcd(problem.weights.shape[2], max(choice.width for choice in CHOICES))
    return [Feedback(damped, together) for damped in problem.damped]


def curve_of(
    weight: Weight,
    problem: Problem | None,
    feedbacks: Sequence[Feedback],
    held_out: HeldOut | None,
) -> tuple[tuple[int, ...], tuple[float, ...]]:
    """Return what a weight takes and loses by each choice, on held-out columns if there are."""
    sizes = tuple(_stored_bytes(weight, choice) for choice in CHOICES)
    if problem is None:
        rows = np.moveaxis(weight.load(), weight.output_axis, 0)
        rows = rows.reshape(len(rows), -1)[:: max(1, len(rows) // (8 * ROWS))].astype(np.float64)
        return sizes, _errors(lambda choice: _rounding_error(rows, choice))
    step = max(1, problem.weights.shape[1] // ROWS)
    return sizes, _feedback_errors(problem, step, feedbacks, held_out)


def _feedback_errors(
    whole: Problem, step: int, feedbacks: Sequence[Feedback], held_out: HeldOut | None
) -> tuple[float, ...]:
    """Return the error at each choice, on columns that the feedback has not seen if it can be.

    Codebooks are those of all outputs, errors those of one of every ``step``.
    """
    problem = replace(whole, weights=whole.weights[:, ::step])
    none = np.zeros(problem.weights.shape[:2])
    support = support_of(problem.weights)

    def measure(choice: Choice) -> float:
        width = choice.width
        if problem.weights.shape[2] % width:
            return inf
        scales, rounded = _grid(whole.weights, choice)
        scale = scales[:, ::step]
        stays = [None] * len(none) if support is None or width > 1 else support
        trios = zip(feedbacks, problem.weights / scale, stays, strict=True)
        found = np.stack(
            [each.round(scaled, rounded, stay, width) for each, scaled, stay in trios]
        )
        if held_out is None:
            return problem.error(found * scale)
        return held_out_error(problem.weights, found * scale, none, held_out)

    return _errors(measure)


def _errors(measure: Callable[[Choice], float]) -> tuple[float, ...]:
    """Return the error at each choice, measured up to `FINEST`; every further bit quarters it."""
    known = {choice: measure(choice) for choice in CHOICES if choice.bits <= FINEST.bits}
    return tuple(
        known[choice] if choice in known else known[FINEST] / 4 ** (choice.bits - FINEST.bits)
        for choice in CHOICES
    )


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
        vectors = vectors[:: max(1, len(vectors) // VECTORS)]
        book = cluster_vectors(vectors, choice.entries)
        return (
            scale,
            lambda columns, metric: book[assign_vectors((metric @ columns).T, book @ metric.T)].T,
        )
    histogram = Histogram()
    histogram.add(weights / scale, np.square(scale))
    entries = cluster_points(*histogram.points(), choice.entries, exact=POINTS).astype(np.float32)
    limits = (entries[1:] + entries[:-1]) / 2
    return scale, lambda columns, _: entries[np.searchsorted(limits, columns)]


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
