"""What each layer could become, and what that would cost."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from onnxcomp.layerwise import observed
from onnxcomp.recovery import Problem, takes_bias
from onnxcomp.statistics import one_thread
from onnxcomp_passes.factorize.kinds import PAIR, Choice, kinds_of, rank_within, ranks_of
from onnxcomp_passes.factorize.pieces import whole
from onnxcomp_passes.factorize.spectrum import Spectrum, tail

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from onnxcomp.graph import Model
    from onnxcomp.pipeline import Context
    from onnxcomp.statistics import InputStatistics, Layer
    from onnxcomp_passes.factorize.sites import Site

    Floats = NDArray[np.float64]
    Subject = tuple[Site, Layer]

SHARES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
"""Shares of a layer's weights at which it is weighed up for a budget."""


@dataclass(frozen=True)
class Variant:
    """One thing that a layer could become.

    Args:
        choice: What.
        nbytes: What it takes in the file.
        error: Squared error of the layer's outputs relative to them, or of its weights where
            outputs are not known.
    """

    choice: Choice
    nbytes: int
    error: float


@dataclass(frozen=True, eq=False)
class Probe:
    """A weight that is off by a known error, to see what that means for the model.

    Args:
        values: The weight.
        error: The squared error of its outputs, as of `Variant`.
    """

    values: NDArray[Any]
    error: float


@dataclass(frozen=True, eq=False)
class Survey:
    """What layers could become, by the identity of the weight's constant.

    Args:
        menus: The variants of each.
        probes: For a budget: of each that has variants.
    """

    menus: dict[int, list[Variant]] = field(default_factory=dict)
    probes: dict[int, Probe] = field(default_factory=dict)

    def add(self, site: Site, wish: Wish, seconds: Sequence[Floats | None]) -> None:
        """Look at one layer, whose second moments are known or Nones."""
        key = id(site.weight.tensor)
        curve = Curve(site, seconds) if wish.needs_errors(site) else None
        self.menus[key] = wish.menu(site, curve)
        if wish.budget and curve is not None and self.menus[key]:
            self.probes[key] = curve.probe(self.menus[key])


@dataclass(frozen=True)
class Wish:
    """What is asked for of each layer: an energy, a share of its weights, or a choice of shares.

    Args:
        kinds: The kinds of layers that convolutions may become.
        multiple: What the channels in between of a convolution are a multiple of.
        energy: Share of the outputs' energy that is kept.
        share: Share of the weights that is kept, instead.
        budget: Whether there are to be several variants of each kind, instead.
    """

    kinds: tuple[str, ...]
    multiple: int
    energy: float
    share: float | None = None
    budget: bool = False

    def needs_errors(self, site: Site) -> bool:
        """Tell whether it has to be known what a layer multiplies."""
        return self.share is None or len(kinds_of(site, self.kinds)) > 1

    def menu(self, site: Site, curve: Curve | None) -> list[Variant]:
        """Return what a layer could become; errors are not known without a curve."""
        found = []
        for kind in kinds_of(site, self.kinds):
            ranks = ranks_of(site, kind, self.multiple)
            for rank in self._ranks(site, kind, ranks, curve):
                choice = Choice(kind, rank)
                error = 0.0 if curve is None else curve.error(choice)
                found.append(Variant(choice, choice.nbytes(site), error))
        return found

    def _ranks(self, site: Site, kind: str, ranks: range, curve: Curve | None) -> list[int]:
        if self.budget or self.share is not None or curve is None:
            shares = SHARES if self.budget or self.share is None else (self.share,)
            size = whole(site)[0].size
            within = [rank_within(site, kind, ranks, share * size) for share in shares]
            return sorted({rank for rank in within if rank is not None})
        low, high = 0, len(ranks)
        while low < high:
            middle = (low + high) // 2
            if curve.error(Choice(kind, ranks[middle])) <= 1 - self.energy:
                high = middle
            else:
                low = middle + 1
        return [ranks[low]] if low < len(ranks) else []


@dataclass(eq=False)
class Curve:
    """The error of a layer at each kind and rank.

    Args:
        site: The layer.
        seconds: For each group the second moment of what it multiplies, or None.
    """

    site: Site
    seconds: Sequence[Floats | None]
    _known: dict[Choice, float] = field(default_factory=dict)
    _energies: Floats | None = None

    def probe(self, variants: Sequence[Variant]) -> Probe:
        """Return the weight as it is with the variant of the middle error."""
        by_error = sorted(variants, key=lambda each: each.error)
        variant = by_error[len(by_error) // 2]
        dense = variant.choice.solve(self.site, self._weights(), self.seconds).dense
        values = self.site.form.to_tensor(dense).astype(self.site.weight.dtype)
        return Probe(values, variant.error)

    def error(self, choice: Choice) -> float:
        """Return the squared error relative to the outputs."""
        if choice.kind in {PAIR, "channel"}:
            return self._tail(choice.rank)
        if choice not in self._known:
            weights = self._weights()
            found = choice.solve(self.site, weights, self.seconds).dense
            self._known[choice] = relative_square(weights, found, self.seconds)
        return self._known[choice]

    def _weights(self) -> Floats:
        return self.site.form.to_matrices(self.site.weight.load()).astype(np.float64)

    def _tail(self, rank: int) -> float:
        if self._energies is None:
            pairs = zip(self._weights(), self.seconds, strict=True)
            self._energies = np.sum([Spectrum(*pair).energies for pair in pairs], axis=0)
        return tail(self._energies, rank)


def relative_square(weights: Floats, found: Floats, seconds: Sequence[Floats | None]) -> float:
    """Return the squared error of outputs relative to their square.

    Args:
        weights: Shape (groups, outputs, inputs).
        found: Likewise.
        seconds: For each group the second moment of what they multiply, or None.
    """
    wrong, total = 0.0, 0.0
    for first, other, second in zip(weights, found, seconds, strict=True):
        missed = first - other
        wrong += float(np.vdot(missed if second is None else missed @ second, missed))
        total += float(np.vdot(first if second is None else first @ second, first))
    return max(wrong, 0.0) / total if total > 0 else 0.0


def survey(model: Model, subjects: Sequence[Subject], wish: Wish, context: Context) -> Survey:
    """Find out what each layer could become.

    Args:
        model: The model.
        subjects: Its layers.
        wish: What is asked for.
        context: Samples, or statistics of the model; without either, errors of the weights stand
            for those of the outputs.
    """
    found = Survey()
    concerned = [each for each in subjects if each[1].uses and wish.needs_errors(each[0])]
    of_layer = {layer: site for site, layer in concerned}
    with one_thread():
        for layer, inputs in observed(model, list(of_layer), context):
            site = of_layer[layer]
            found.add(site, wish, seconds_of(site, layer, inputs))
    with one_thread():
        for site, _ in subjects:
            if id(site.weight.tensor) not in found.menus:
                found.add(site, wish, [None] * site.form.matrices[0])
    return found


def problem_of(site: Site, layer: Layer, inputs: InputStatistics) -> Problem | None:
    """Return a layer as a least-squares problem; None where nothing was observed."""
    moments = inputs.fit
    if moments is None:
        return None
    weights = site.form.to_matrices(site.weight.load())
    return Problem.of(weights, moments, shifts=all(takes_bias(use) for use in layer.uses))


def seconds_of(site: Site, layer: Layer, inputs: InputStatistics) -> Sequence[Floats | None]:
    """Return damped second moments of what a layer multiplies, one for each group, or Nones."""
    problem = problem_of(site, layer, inputs)
    return [None] * site.form.matrices[0] if problem is None else problem.damped
