"""The error of a layer at each kind and rank, on columns that nothing was fitted to."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from onnxcomp.recovery import Problem, takes_bias
from passes.factorize.kinds import PAIR
from passes.factorize.spectrum import Spectrum, tails

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from onnxcomp.statistics import InputStatistics, Layer
    from passes.factorize.kinds import Choice
    from passes.factorize.sites import Site

    Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Probe:
    """A weight that is off by a known error, to see what that means for the model.

    Args:
        values: The weight.
        error: The squared error of its outputs relative to them.
    """

    values: NDArray[Any]
    error: float


@dataclass(frozen=True, eq=False)
class Seen:
    """What is known of the columns that a layer multiplies.

    Args:
        seconds: For each group their second moment, positive definite, or None.
        unseen: Columns that it is not made of, less their mean where that can be corrected,
            shape (groups or 1, columns, inputs); None where there are none.
    """

    seconds: Sequence[Floats | None]
    unseen: Floats | None = None

    def squares(self, weights: Floats) -> float:
        """Return the sum of the squared outputs of weights, shape (groups, outputs, inputs)."""
        if self.unseen is not None:
            return float(np.square(self.unseen @ weights.transpose(0, 2, 1)).sum())
        pairs = zip(weights, self.seconds, strict=True)
        return max(0.0, sum(float(np.vdot(w if h is None else w @ h, w)) for w, h in pairs))


def nothing_seen(site: Site) -> Seen:
    """Return that nothing is known: errors are then those of the weights."""
    return Seen([None] * site.form.matrices[0])


def problem_of(site: Site, layer: Layer, inputs: InputStatistics) -> Problem | None:
    """Return a layer as a least-squares problem; None where nothing was observed."""
    moments = inputs.fit
    if moments is None:
        return None
    weights = site.form.to_matrices(site.weight.load())
    return Problem.of(weights, moments, shifts=all(takes_bias(use) for use in layer.uses))


def seen_by(site: Site, layer: Layer, inputs: InputStatistics) -> Seen:
    """Return what is known of a layer's columns."""
    problem = problem_of(site, layer, inputs)
    if problem is None:
        return nothing_seen(site)
    if inputs.held_out is None:
        return Seen(problem.ridged)
    unseen = inputs.held_out.columns.astype(np.float64)
    means = problem.mean[: len(unseen), None]
    return Seen(problem.ridged, unseen - means if problem.shifts else unseen)


@dataclass(eq=False)
class Curve:
    """The error of a layer at each kind and rank.

    Args:
        site: The layer.
        seen: What is known of its columns.
    """

    site: Site
    seen: Seen
    _known: dict[Choice, float] = field(default_factory=dict)
    _missed: Floats | None = None

    def probe(self, choice: Choice) -> Probe:
        """Return the weight as it is with a choice."""
        dense = choice.solve(self.site, self._weights(), self.seen.seconds).dense
        values = self.site.form.to_tensor(dense).astype(self.site.weight.dtype)
        return Probe(values, self.error(choice))

    def error(self, choice: Choice) -> float:
        """Return the squared error relative to the outputs, or without data to the weights."""
        if choice.kind in {PAIR, "channel"}:
            return self._of_rank(choice.rank)
        if choice not in self._known:
            weights = self._weights()
            found = choice.solve(self.site, weights, self.seen.seconds).dense
            total = self.seen.squares(weights)
            missed = self.seen.squares(weights - found)
            self._known[choice] = missed / total if total > 0 else 0.0
        return self._known[choice]

    def _weights(self) -> Floats:
        return self.site.form.to_matrices(self.site.weight.load()).astype(np.float64)

    def _of_rank(self, rank: int) -> float:
        """Return the error at a rank; one decomposition tells that of all."""
        if self._missed is None:
            weights, unseen = self._weights(), self.seen.unseen
            energies = np.zeros(self.site.full_rank)
            for group, each in enumerate(weights):
                spectrum = Spectrum(each, self.seen.seconds[group])
                columns = None if unseen is None else unseen[group if len(unseen) > 1 else 0]
                energies += spectrum.energies if columns is None else spectrum.gains(columns)
            self._missed = tails(energies)
        return float(self._missed[min(rank, len(self._missed) - 1)])
