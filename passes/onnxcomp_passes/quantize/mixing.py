"""Which layers get faster by which integers: parts of a model are tried in turn, and timed.

What is timed are drafts: the operators are those of the result, but ranges are the extremes of few
samples, and weights are rounded to the nearest codes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from glob import escape
from itertools import islice
from time import perf_counter
from typing import TYPE_CHECKING

from onnxcomp.benchmarking import time_ratio
from onnxcomp.graph import copy_model, model_bytes
from onnxcomp.pipeline import Context
from onnxcomp.statistics import Range, RangeWatch, Statistics, held_out_samples, layers, walk
from onnxcomp_passes.quantize.profiles import PROFILES
from onnxcomp_passes.quantize.regions import portions, reading_together, regions
from onnxcomp_passes.quantize.selecting import full_plan
from onnxcomp_passes.quantize.suiting import suits_dynamic

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import Literal

    from onnxcomp.graph import Model
    from onnxcomp.runtime import Feed, Samples
    from onnxcomp_passes.quantize.quantize import Quantize
    from onnxcomp_passes.quantize.regions import Names

OBSERVED = 4
"""Samples of which drafts are made and on which they are timed."""

ROUGHLY = {
    "ranges": "minmax",
    "keep_float": "0",
    "weight_type": "int8",
    "rest": "float32",
    "power_of_two": True,
}
"""Options of drafts: nothing is searched for, and what is folded is folded all the same."""

PORTIONS = 12
"""Parts of a model that are tried apart."""

MOST_SECONDS = 60.0
"""After so long no further part is tried; a part takes about a hundred runs and 36 loads."""


@dataclass(frozen=True)
class Mix:
    """Which layers compute with which integers.

    Args:
        mode: What is done to layers, where that is possible.
        wide: Whether depthwise convolutions and gates count among them.
        stored: Names of weights whose layers compute with floats all the same.
        dynamic: Names of weights whose activations are rounded as they come all the same.
    """

    mode: Literal["static", "dynamic"]
    wide: bool = False
    stored: Names = ()
    dynamic: Names = ()

    def passes(self, options: Quantize) -> tuple[Quantize, ...]:
        """Return the passes that make it, with other options as given."""
        rest = {"dynamic": self.dynamic, "weights": self.stored}
        apart = tuple(escape(name) for name in (*self.dynamic, *self.stored))
        first = options.model_copy(
            update={
                "mode": self.mode,
                "wide": self.wide,
                "exclude": (*options.exclude, *apart),
            }
        )
        others = [
            options.model_copy(
                update={
                    "mode": mode,
                    "wide": False,
                    "include": tuple(escape(name) for name in names),
                    # The first pass has made all floats by then, if that was asked for.
                    "requantize": False,
                }
            )
            for mode, names in rest.items()
            if names
        ]
        return first, *others

    def alternatives(self, names: Names, dynamic: frozenset[str]) -> Iterator[Mix]:
        """Yield mixes in which some layers compute otherwise than now."""
        yield replace(self, stored=(*self.stored, *names))
        if self.mode == "static" and dynamic.issuperset(names):
            yield replace(self, dynamic=(*self.dynamic, *names))


@dataclass(frozen=True, eq=False)
class Drafts:
    """Drafts of what a model may become.

    Args:
        model: The model.
        options: The options of the pass.
        statistics: Ranges of what may be rounded.
        feeds: What drafts are timed on.
        static: Weights that may be computed with on ranges found before, by region: with wide
            placement, and without.
        dynamic: The same with ranges found at every run.
    """

    model: Model
    options: Quantize
    statistics: Statistics
    feeds: Sequence[Feed]
    static: dict[bool, list[Names]]
    dynamic: list[Names]

    @classmethod
    def of(cls, model: Model, options: Quantize, samples: Samples) -> Drafts:
        """Observe a model on a few samples."""
        few = held_out_samples(samples, OBSERVED)
        profile = PROFILES[options.profile].computing(options.activation_type)
        weights, _ = options.suitable(model)
        chosen = {id(each.tensor) for each in weights}
        plans = {
            wide: full_plan(model, chosen, profile.widened if wide else profile)
            for wide in (False, True)
        }
        watches = [
            RangeWatch(each.name, (each.tensor, each.scope), Range())
            for each in plans[True].place(model).tensors
        ]
        walk((model,), watches, few)
        dynamic = [
            layer.key
            for layer in layers(model)
            if id(layer.weight.tensor) in chosen and suits_dynamic(layer, profile)
        ]
        return cls(
            model,
            options.model_copy(update=ROUGHLY),
            Statistics("", {}, {watch.name: watch.range for watch in watches}),
            list(islice(few, OBSERVED)),
            {wide: regions(model, plan) for wide, plan in plans.items()},
            reading_together(model, dynamic),
        )

    def mixes(self, context: Context) -> list[Mix]:
        """Return the fastest mix of each mode; none of a mode that does not make it faster.

        Args:
            context: Told what is done.
        """
        starts = []
        if self.static[True]:
            starts.append(Mix("static", wide=self._gains_by_width()))
        if self.dynamic:
            starts.append(Mix("dynamic"))
        found = []
        for place, start in enumerate(starts):
            part = context.part(place / len(starts), (place + 1) / len(starts))
            kept, draft = self._without_idle(start, part)
            if time_ratio(model_bytes(self.model), draft, self.feeds).high < 1:
                found.append(kept)
        return found

    def _made(self, mix: Mix) -> bytes:
        drafted = copy_model(self.model)
        for one in mix.passes(self.options):
            if one.mode != "weights":
                one.apply(drafted, Context(statistics=self.statistics))
        return model_bytes(drafted)

    def _gains_by_width(self) -> bool:
        if self.options.wide or not self.static[False]:
            return True
        narrow, wide = (self._made(Mix("static", wide=each)) for each in (False, True))
        return narrow != wide and time_ratio(narrow, wide, self.feeds).high < 1

    def _without_idle(self, mix: Mix, context: Context) -> tuple[Mix, bytes]:
        """Take parts of a model out of a mix that do not make it faster; return its draft too."""
        found = self.static[mix.wide] if mix.mode == "static" else self.dynamic
        dynamic = frozenset(name for names in self.dynamic for name in names)
        kept, draft, started = mix, self._made(mix), perf_counter()
        parts = list(portions(found, PORTIONS))
        for place, names in enumerate(parts):
            context.progress(place / len(parts))
            for other in kept.alternatives(names, dynamic):
                if perf_counter() - started > MOST_SECONDS:
                    return kept, draft
                tried = self._made(other)
                if time_ratio(draft, tried, self.feeds).median < 1:
                    kept, draft = other, tried
        return kept, draft
