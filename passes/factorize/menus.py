"""What each layer could become, and what that would cost."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from onnxcomp.statistics import InputStatistics, one_thread, walk, watch_inputs
from passes.factorize.curves import Curve, Probe, nothing_seen, seen_by
from passes.factorize.kinds import Choice, kinds_of, rank_within, ranks_of
from passes.factorize.pieces import whole

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from onnxcomp.graph import Model
    from onnxcomp.pipeline import Context
    from onnxcomp.statistics import Layer
    from passes.factorize.curves import Seen
    from passes.factorize.sites import Site

    Subject = tuple[Site, Layer]

SHARES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
"""Shares of a layer's weights at which it is weighed up for a budget."""

MOMENT_BYTES = 8
MOST_BYTES = 1 << 28
"""What the second moments of layers that are observed together may take."""


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
class Survey:
    """What layers could become, by the identity of the weight's constant.

    Args:
        menus: The variants of each.
        probes: For a budget: of each that has variants.
    """

    menus: dict[int, list[Variant]] = field(default_factory=dict)
    probes: dict[int, Probe] = field(default_factory=dict)

    def add(self, site: Site, wish: Wish, seen: Seen) -> None:
        """Look at one layer, of whose columns something is known or nothing."""
        key = id(site.weight.tensor)
        curve = Curve(site, seen) if wish.needs_errors(site) else None
        self.menus[key] = wish.menu(site, curve)
        if wish.budget and curve is not None and self.menus[key]:
            by_error = sorted(self.menus[key], key=lambda each: each.error)
            self.probes[key] = curve.probe(by_error[len(by_error) // 2].choice)


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
    observed = [each for each in subjects if each[1].uses and wish.needs_errors(each[0])]
    parts = list(_parts(observed))
    for number, part in enumerate(parts):
        told = context.part(number / len(parts), (number + 1) / len(parts))
        inputs = _inputs(model, [layer for _, layer in part], told)
        with one_thread():
            for (site, layer), each in zip(part, inputs, strict=True):
                found.add(site, wish, seen_by(site, layer, each))
    with one_thread():
        for site, _ in subjects:
            if id(site.weight.tensor) not in found.menus:
                found.add(site, wish, nothing_seen(site))
    return found


def _inputs(model: Model, chosen: Sequence[Layer], context: Context) -> list[InputStatistics]:
    if context.samples is not None:
        watches, inputs = watch_inputs(chosen)
        walk((model,), watches, context.samples, context.progress)
        return inputs
    known = context.statistics
    return [InputStatistics() if known is None else known.of(layer) for layer in chosen]


def _parts(subjects: Sequence[Subject]) -> Iterator[list[Subject]]:
    """Cut layers into runs whose second moments fit the memory together."""
    part: list[Subject] = []
    total = 0
    for site, layer in subjects:
        groups, _, width = site.form.matrices
        size = groups * width * width * MOMENT_BYTES
        if part and total + size > MOST_BYTES:
            yield part
            part, total = [], 0
        part.append((site, layer))
        total += size
    if part:
        yield part
