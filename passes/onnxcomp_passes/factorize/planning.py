"""Which layer becomes what: chosen for each alone, under a budget of all, or given."""

from __future__ import annotations

import json
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cached_property
from typing import TYPE_CHECKING

from onnxcomp.errors import ReachError
from onnxcomp.graph import count_bytes
from onnxcomp.recovery import bias_bytes, takes_bias
from onnxcomp.statistics import layers
from onnxcomp_passes.factorize.budget import choose, losses
from onnxcomp_passes.factorize.extents import observe_shapes
from onnxcomp_passes.factorize.kinds import KINDS, Choice, kinds_of
from onnxcomp_passes.factorize.menus import survey
from onnxcomp_passes.factorize.pieces import Piece, count_macs, whole
from onnxcomp_passes.factorize.plans import Plan
from onnxcomp_passes.factorize.timing import FASTER, Stopwatch

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from onnxcomp.graph import Model
    from onnxcomp.pipeline import Context
    from onnxcomp.statistics import Layer
    from onnxcomp_passes.factorize.extents import ShapeWatch
    from onnxcomp_passes.factorize.menus import Variant, Wish
    from onnxcomp_passes.factorize.plans import Subject
    from onnxcomp_passes.factorize.sites import Site

    Menus = dict[int, list[Variant]]

SURVEYED = 0.7
"""The share of the progress that finding what layers could become takes."""

RECIPE_BYTES, ENTRY_BYTES, NAME_BYTES = 1024, 24, 96
"""What the recipe takes, an entry of a plan besides the name, and a bias besides its values."""


@dataclass(frozen=True, eq=False)
class Planner:
    """Chooses what layers become.

    Args:
        name: The pass, for messages.
        model: The model; not changed.
        subjects: The layers that may be factorized.
        wish: What is asked for of each.
        context: Samples, or statistics of the model.
        allow: What has to come of it: ``size``, ``speed`` or ``both``.
    """

    name: str
    model: Model
    subjects: Sequence[Subject]
    wish: Wish
    context: Context
    allow: str

    def given(self, entries: Sequence[tuple[str, Choice]]) -> Plan:
        """Return the plan that somebody wrote."""
        choices, refused = {}, {}
        for site, _ in self.subjects:
            key, name = id(site.weight.tensor), site.weight.name
            choice = next((one for glob, one in entries if fnmatchcase(name, glob)), None)
            if choice is None:
                refused[key] = "is not in the plan"
            elif choice.kind not in kinds_of(site, tuple(KINDS)):
                refused[key] = f"cannot become {choice.kind}"
            elif choice.rank > KINDS[choice.kind].most(site):
                most = KINDS[choice.kind].most(site)
                refused[key] = f"loses nothing from rank {most} on; {choice} has a higher one"
            elif self._is_smaller(site, choice.nbytes(site)):
                choices[key] = choice
            else:
                refused[key] = self._cost(site, choice)
        return Plan(choices, refused, is_measured=False)

    def each(self) -> Plan:
        """Return the plan in which each layer gets what is best for it alone."""
        menus = survey(self.model, self.subjects, self.wish, self.context.part(0, SURVEYED)).menus
        choices, refused = {}, {}
        for number, (site, _) in enumerate(self.subjects):
            key = id(site.weight.tensor)
            reason = self._why_not(site, menus[key])
            best = None if reason else self._best(site, menus[key])
            if best is not None:
                choices[key] = best.choice
            else:
                costs = (self._cost(site, one.choice) for one in menus[key])
                refused[key] = reason or "; ".join(costs)
            self.context.progress(SURVEYED + (1 - SURVEYED) * (number + 1) / len(self.subjects))
        return Plan(choices, refused, is_measured=self.allow != "size")

    def within_macs(self, share: float) -> Plan:
        """Return the plan that keeps a share of the model's multiplications.

        Raises:
            ReachError: There is none.
        """
        total = sum(self._macs_of(layer) for layer in layers(self.model))
        subjects = [one for one in self.subjects if self._macs(one[0], None)]
        own = sum(self._macs(site, None) for site, _ in subjects)
        try:
            return self._within(subjects, self._macs, int(share * total) - total + own)
        except ValueError as error:
            least = (int(str(error)) + total - own) / total if total else 1.0
            raise ReachError(
                self.name,
                f"macs = {share} cannot be reached; {least:.3f} can (allow more, or factorize "
                "more tensors)",
                least,
            ) from error

    def within_bytes(self, ratio: float) -> Plan:
        """Return the plan for a file that is so many times smaller.

        Raises:
            ReachError: There is none.
        """
        size = count_bytes(self.model)
        limit = int(size / ratio)
        own = sum(site.weight.tensor.nbytes for site, _ in self.subjects)
        fixed = size - own + self._reserved()

        def nbytes(site: Site, variant: Variant | None) -> int:
            return site.weight.tensor.nbytes if variant is None else variant.nbytes

        try:
            return self._within(self.subjects, nbytes, limit - fixed)
        except ValueError as error:
            least = int(str(error)) + fixed
            raise ReachError(
                self.name,
                f"a file of {limit} bytes cannot be reached; the smallest has about {least} "
                "(allow more, or factorize more tensors)",
                size / least,
            ) from error

    def _within(
        self,
        subjects: Sequence[Subject],
        cost: Callable[[Site, Variant | None], int],
        budget: int,
    ) -> Plan:
        found = survey(self.model, subjects, self.wish, self.context.part(0, SURVEYED))
        menus = found.menus
        refused = {id(site.weight.tensor): "nothing runs its layer" for site, _ in self.subjects}
        concerned = []
        for site, _ in subjects:
            key = id(site.weight.tensor)
            smaller = [one for one in menus[key] if self._is_smaller(site, one.nbytes)]
            reason = self._why_not(site, smaller)
            refused[key] = reason or "is worth more as it is"
            menus[key] = [] if reason else smaller
            if menus[key]:
                concerned.append(site)
        told = self.context.part(SURVEYED, 1)
        kinds = [*self.wish.kinds, str(self.wish.multiple)]
        name = json.dumps(["losses of layers", kinds, [site.weight.name for site in concerned]])
        sensitivities = self.context.recall(
            name, lambda: losses(self.model, concerned, found.probes, told)
        )
        others = [site for site, _ in subjects if all(site is not one for one in concerned)]
        held = sum(cost(site, None) for site in others)
        own = (concerned, menus, sensitivities, cost)
        chosen = choose(*own, budget=budget, held=held)
        while self._strike_slow(concerned, chosen, menus, refused):
            chosen = choose(*own, budget=budget, held=held)
        pairs = zip(concerned, chosen, strict=True)
        choices = {id(site.weight.tensor): one.choice for site, one in pairs if one is not None}
        kept = {key: why for key, why in refused.items() if key not in choices}
        return Plan(choices, kept, is_measured=True)

    def _strike_slow(
        self,
        sites: Sequence[Site],
        chosen: Sequence[Variant | None],
        menus: Menus,
        refused: dict[int, str],
    ) -> bool:
        """Take from the menus what was chosen and is not faster; tell whether there was any."""
        found = False
        for site, one in zip(sites, chosen, strict=True):
            if one is None or self._pays(site, one):
                continue
            key, found = id(site.weight.tensor), True
            refused[key] = self._cost(site, one.choice)
            menus[key] = [
                each
                for each in menus[key]
                if each.choice.kind != one.choice.kind or each.nbytes < one.nbytes
            ]
        return found

    @cached_property
    def _shapes(self) -> dict[int, ShapeWatch]:
        own = layers(self.model)
        watches = observe_shapes(self.model, own, self.context)
        return {id(each.weight.tensor): watches[each.key] for each in own if each.key in watches}

    @cached_property
    def _stopwatch(self) -> Stopwatch:
        return Stopwatch(self.model, self._shapes)

    def _macs_of(self, layer: Layer) -> int:
        watch = self._shapes.get(id(layer.weight.tensor))
        if watch is None or watch.extent is None:
            return 0
        extent, op = watch.extent, str(watch.use.node.op)
        axes = tuple(range(len(extent.after))) if op == "Conv" else ()
        return count_macs([Piece(layer.weight.shape, 1, axes)], extent, op)

    def _macs(self, site: Site, variant: Variant | None) -> int:
        watch = self._shapes.get(id(site.weight.tensor))
        if watch is None or watch.extent is None:
            return 0
        pieces = whole(site) if variant is None else variant.choice.pieces(site)
        return count_macs(pieces, watch.extent, site.op)

    def _reserved(self) -> int:
        """Return what is added besides: the recipe and, with data, biases."""
        reserved = RECIPE_BYTES
        has_data = self.context.samples is not None or self.context.statistics is not None
        for site, layer in self.subjects:
            reserved += len(site.weight.name) + ENTRY_BYTES
            uses = [use for use in layer.uses if takes_bias(use)] if has_data else []
            reserved += sum(bias_bytes(use, site.weight.dtype) + NAME_BYTES for use in uses)
        return reserved

    def _why_not(self, site: Site, variants: Sequence[Variant]) -> str | None:
        if not variants:
            multiple = f", in multiples of {self.wish.multiple}," if site.is_convolution else ""
            return f"has no rank{multiple} that is low enough"
        if self.allow == "size":
            return None
        return self._stopwatch.why_not(site)

    def _pays(self, site: Site, one: Variant) -> bool:
        if not self._is_smaller(site, one.nbytes):
            return False
        return self.allow == "size" or self._stopwatch.is_faster(site, one.choice)

    def _is_smaller(self, site: Site, nbytes: int) -> bool:
        return self.allow == "speed" or nbytes < site.weight.tensor.nbytes

    def _best(self, site: Site, variants: Sequence[Variant]) -> Variant | None:
        """Return what pays and is closest; the smallest or fastest where all are close enough."""
        if self.wish.share is not None:
            ranked = sorted(variants, key=lambda one: (one.error, one.nbytes))
        elif self.allow == "size":
            ranked = sorted(variants, key=lambda one: (one.nbytes, one.error))
        else:
            paying = [one for one in variants if self._pays(site, one)]
            ranked = sorted(paying, key=lambda one: -self._stopwatch.speedup(site, one.choice))
        return next((one for one in ranked if self._pays(site, one)), None)

    def _cost(self, site: Site, choice: Choice) -> str:
        """Say what a choice would cost."""
        share = choice.nbytes(site) / max(site.weight.tensor.nbytes, 1)
        text = f"{choice} would take {share:.0%} of the bytes"
        if self.allow == "size" or not self._is_smaller(site, choice.nbytes(site)):
            return text
        speedup = self._stopwatch.speedup(site, choice)
        return f"{text} and be {speedup:.2f} times as fast (asked for is {FASTER})"
