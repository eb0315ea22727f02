"""The pass: which channels go, and what makes up for them."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field

from onnxcomp.errors import OptionError, ReachError
from onnxcomp.graph import copy_model, weights
from onnxcomp.pipeline import Pass, Stage, Strength, skip
from onnxcomp_passes.prune_channels.allocating import counts_to_keep
from onnxcomp_passes.prune_channels.cutting import cut, kill
from onnxcomp_passes.prune_channels.finding import find_groups
from onnxcomp_passes.prune_channels.macs import work_of
from onnxcomp_passes.prune_channels.observing import observe_groups
from onnxcomp_passes.prune_channels.planning import Planner
from onnxcomp_passes.prune_channels.shapes import measure
from onnxcomp_passes.prune_channels.sharing import folded, join, names_of, split
from onnxcomp_passes.prune_channels.timing import share_for
from onnxcomp_passes.prune_channels.verdicts import cuts_of, judge, leave

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from onnxcomp.graph import Model
    from onnxcomp.pipeline import Context
    from onnxcomp.runtime import Feed
    from onnxcomp.verdicts import Verdict
    from onnxcomp_passes.prune_channels.choosing import Choosing
    from onnxcomp_passes.prune_channels.consumers import Channels
    from onnxcomp_passes.prune_channels.groups import Group
    from onnxcomp_passes.prune_channels.observing import Criterion

RATIO = 0.3
"""Share of the channels that goes where nothing is said."""

PLANNING = 0.5
"""Of the progress: when it is known which channels go."""


class PruneChannels(Pass):
    """Remove channels, neurons, attention heads and hidden widths: less work, and a smaller file.

    What belongs together goes together, through the whole graph. With data, those go of which the
    others can say what they said, and what multiplies them is refitted; inputs and outputs of the
    model keep their shapes.

    Methods: block Optimal Brain Surgeon (Hassibi and Stork, 1993; Kurtic et al., "ZipLM", 2023);
    least squares on what is left.
    """

    name: ClassVar[str] = "prune-channels"
    stage: ClassVar[Stage] = Stage.PRUNE_CHANNELS

    ratio: Annotated[
        float | None,
        Field(
            gt=0,
            lt=1,
            description="Share of the channels to remove; 0.3 without --macs and --latency.",
        ),
    ] = None
    macs: Annotated[
        float | None,
        Field(gt=0, lt=1, description="Share of the multiply-accumulate operations to keep."),
    ] = None
    latency: Annotated[
        float | None,
        Field(
            gt=0, lt=1, description="Share of the time of a run to keep, measured on one thread."
        ),
    ] = None
    scope: Annotated[
        Literal["uniform", "global"] | None,
        Field(
            description="The same share of every group, usual with --ratio, or more where it "
            "costs less, usual with --macs and --latency."
        ),
    ] = None
    criterion: Annotated[
        Literal["auto", "magnitude", "activation", "second-order"],
        Field(
            description="Which channels go: small weights; what is multiplied with small numbers; "
            "what others can make up for. Auto is the last with data, the first without."
        ),
    ] = "auto"
    round_to: Annotated[
        int | None,
        Field(
            ge=1,
            description="Keep multiples of so many channels; as suits the layer if not given: 16 "
            "or 8 for convolutions.",
        ),
    ] = None
    least: Annotated[
        float, Field(gt=0, le=1, description="Share of every group's channels to keep at least.")
    ] = 0.2

    def model_post_init(self, context: Any, /) -> None:
        """Refuse goals that exclude each other."""
        del context
        goals = [each for each in ("ratio", "macs", "latency") if getattr(self, each) is not None]
        if len(goals) > 1:
            raise OptionError(f"{self.name}: {' and '.join(goals)} exclude each other; give one")
        if self.ratio is not None and self.ratio > 1 - self.least:
            raise OptionError(
                f"{self.name}: ratio = {self.ratio} leaves less than least = {self.least}; "
                "lower one of them"
            )

    @property
    def strength(self) -> Strength:
        """What a search turns: the operations that stay."""
        return Strength("macs", 0.98, 0.25)

    @property
    def saves_bytes(self) -> bool:
        """Whether every weight shrinks; what counts is work, and some are only fitted anew."""
        return False

    @property
    def needs_data(self) -> bool:
        """Whether there must be data: to rank channels by what they hold, or to time a run."""
        return self.latency is not None or self.criterion in {"activation", "second-order"}

    def apply(self, model: Model, context: Context) -> list[Verdict]:
        """Remove channels; with data, refit what multiplied them."""
        self._check_data(context)
        shared = split(model)
        original = copy_model(model)
        every = list(zip(weights(model), weights(original), strict=True))
        feed = _first_feed(context)
        groups, frozen = find_groups(model, feed)
        chosen, reasons = self._selected(groups, names_of(shared))
        removed = self._removed(model, chosen, context.part(0, PLANNING))
        cuts = cuts_of(chosen, removed)
        repairs = {}
        if cuts:
            may = {id(each.tensor) for each in self.candidates(model)[0]}
            rest = context.part(PLANNING, 1)
            repairs = kill(model, original, chosen, removed, rest, refitted=may)
        verdicts = [
            judge(own, twin.load(), cuts.get(id(own.tensor), ()), repairs.get(id(own.tensor)))
            if id(own.tensor) in cuts or id(own.tensor) in repairs
            else leave(own, chosen, frozen, reasons)
            if self.selects(own.name)
            else skip(own, "was not selected by include and exclude")
            for own, twin in every
        ]
        if cuts:
            cut(model, chosen, removed, feed)
        join(shared)
        context.progress(1.0)
        return folded(verdicts, shared)

    def _check_data(self, context: Context) -> None:
        has_samples, has_statistics = context.samples is not None, context.statistics is not None
        if self.latency is not None and not has_samples:
            raise OptionError(
                f"{self.name}: latency = {self.latency} needs samples to time; give --data"
            )
        if self.needs_data and not has_samples and not has_statistics:
            raise OptionError(
                f"{self.name}: criterion = {self.criterion!r} needs data; give --data, or use "
                "magnitude"
            )

    def _selected(
        self, groups: Sequence[Group], names: Mapping[str, str]
    ) -> tuple[list[Group], dict[int, str]]:
        """Return the groups that may lose channels, and why weights of the others may not.

        Args:
            groups: Those that were found.
            names: Names by which constants are selected that have another.
        """
        chosen: list[Group] = []
        reasons: dict[int, str] = {}
        for group in groups:
            tensors = [part.tensor for part in group.weights]
            known = (names.get(each.name, each.name) for each in tensors)
            left_out = next((name for name in known if not self.selects(name)), None)
            if left_out is None:
                chosen.append(group)
                continue
            reason = f"goes together with {left_out!r}, which was not selected"
            reasons |= {id(each): reason for each in tensors if self.selects(each.name)}
        return chosen, reasons

    def _removed(self, model: Model, groups: Sequence[Group], context: Context) -> list[Channels]:
        """Choose which channels of each group go."""
        planner = self._planner(model, groups, context.part(0, 0.3))
        first = planner.plan(None, context.part(0.3, 0.5))

        def removed(macs: float | None, context: Context) -> list[Channels]:
            before = first.removed(self._counts(first, macs))
            if planner.criterion == "magnitude" or not any(each.size for each in before):
                return before
            second = planner.plan(before, context)
            return second.removed(self._counts(second, macs))

        rest = context.part(0.5, 1)
        if self.latency is None:
            return removed(self.macs, rest)
        feed = _first_feed(context)

        def result(macs: float) -> Model:
            copied = copy_model(model)
            cut(copied, groups, removed(macs, replace(context, progress=lambda _: None)), feed)
            return copied

        return removed(self._share(self.latency, model, result, rest.part(0, 0.8)), rest)

    def _planner(self, model: Model, groups: Sequence[Group], context: Context) -> Planner:
        has_data = context.samples is not None or context.statistics is not None
        criterion: Criterion = "second-order" if has_data else "magnitude"
        if self.criterion != "auto":
            criterion = self.criterion
        feed = _first_feed(context)
        return Planner(
            model,
            observe_groups(model, groups, context),
            [counts_to_keep(group, self.round_to, self.least) for group in groups],
            criterion,
            work_of(model, groups, measure(model, feed).shapes),
            (self.scope or ("uniform" if self._by_ratio else "global")) == "uniform",
        )

    def _counts(self, choosing: Choosing, macs: float | None) -> list[int]:
        """Choose how many channels of each group stay."""
        ratio = RATIO if self.ratio is None else self.ratio
        try:
            return choosing.by_ratio(ratio) if macs is None else choosing.by_macs(macs)
        except ValueError as error:
            remedy = f"cannot be had: {error} (lower least, or select more)"
            if macs is None:
                raise OptionError(f"{self.name}: ratio = {ratio} {remedy}") from error
            raise ReachError(self.name, f"macs = {macs} {remedy}", choosing.least) from error

    def _share(
        self, latency: float, model: Model, result: Callable[[float], Model], context: Context
    ) -> float:
        """Find the share of the operations that is fast enough, and write it down."""
        assert context.samples is not None  # noqa: S101 - it was checked
        found = share_for(latency, model, result, context.samples, context.progress)
        if found is None:
            raise OptionError(
                f"{self.name}: latency = {latency} cannot be had; allow more, lower least, or "
                "select more"
            )
        context.decide((self.model_copy(update={"latency": None, "macs": found}),))
        return found

    @property
    def _by_ratio(self) -> bool:
        return self.macs is None and self.latency is None


def _first_feed(context: Context) -> Feed | None:
    return None if context.samples is None else next(iter(context.samples.batched(1)))
