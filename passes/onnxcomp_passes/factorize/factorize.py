"""The pass: which layers become smaller ones, and whether it pays."""

from __future__ import annotations

from glob import escape
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from onnxcomp.errors import OptionError
from onnxcomp.graph import copy_model, load_model
from onnxcomp.pipeline import Pass, Stage, Strength, change, skip
from onnxcomp.statistics import layers
from onnxcomp_passes.factorize.calibrating import Calibration
from onnxcomp_passes.factorize.kinds import PAIR
from onnxcomp_passes.factorize.menus import Wish
from onnxcomp_passes.factorize.planning import Planner
from onnxcomp_passes.factorize.plans import Plan, parse_plan
from onnxcomp_passes.factorize.residual import DEFAULT_SHARE, Residuals
from onnxcomp_passes.factorize.sites import Site, site_of
from onnxcomp_passes.factorize.splitting import replace_constants, split

if TYPE_CHECKING:
    from collections.abc import Sequence

    from onnxcomp.graph import Model, Weight
    from onnxcomp.pipeline import Context
    from onnxcomp.statistics import Layer
    from onnxcomp.verdicts import Verdict
    from onnxcomp_passes.factorize.kinds import Choice

PLANNING = 0.4
"""The share of the progress that choosing ranks takes."""


GOALS = ("rank_ratio", "macs", "size_ratio", "plan")
"""Options of which only one can be given; without any, energy decides."""

BUDGETS = ("macs", "size_ratio", "plan")
"""Options that say nothing of branches."""


class Factorize(Pass):
    """Factorize: turn a layer into two or more smaller ones (low rank).

    Fewer weights and fewer multiplications at once, for Gemm, MatMul, Conv, ConvTranspose,
    embeddings and the input weights of LSTM, GRU and RNN. With data the small layers are the best
    ones for the outputs of each layer, after what the layers before have come to; without, for
    its weights.

    Methods: principal components of the responses (Zhang et al., 2015), spatial (Jaderberg et
    al., 2014), Tucker-2 (Kim et al., 2016), CP (Lebedev et al., 2015), depthwise-separable (Guo
    et al., 2018).
    """

    name: ClassVar[str] = "factorize"
    stage: ClassVar[Stage] = Stage.FACTORIZE

    energy: Annotated[
        float,
        Field(
            gt=0,
            lt=1,
            description="Share of the energy of each layer's outputs (without data, of its "
            "weights) that is kept, with the smallest rank that does.",
        ),
    ] = 0.95
    rank_ratio: Annotated[
        float | None,
        Field(gt=0, le=1, description="Share of each layer's weights that is kept, instead."),
    ] = None
    macs: Annotated[
        float | None,
        Field(
            gt=0,
            lt=1,
            description="Share of the model's multiplications that is kept, where they matter "
            "most, instead.",
        ),
    ] = None
    size_ratio: Annotated[
        float | None,
        Field(
            gt=1,
            description="Choose ranks for a file so many times smaller, instead.",
        ),
    ] = None
    plan: Annotated[
        tuple[str, ...],
        Field(
            description="Choose nothing: tensors that match GLOB become KIND of RANK, written "
            "GLOB=KIND:RANK; the first that matches counts."
        ),
    ] = ()
    kinds: Annotated[
        tuple[Literal["channel", "spatial", "tucker", "cp", "separable"], ...],
        Field(
            min_length=1,
            description="What convolutions may become: to few channels, then pointwise; along "
            "one axis, then the other; pointwise, kernel, pointwise; one axis after the other; "
            "depthwise, then pointwise.",
        ),
    ] = ("channel", "spatial", "tucker")
    allow: Annotated[
        Literal["size", "speed", "both"],
        Field(
            description="Factorize what takes fewer bytes; what is measured at least 1.1 times "
            "faster; or what is both."
        ),
    ] = "both"
    rank_multiple: Annotated[
        int,
        Field(ge=1, description="Ranks of convolutions are multiples of this."),
    ] = 16
    min_elements: Annotated[
        int, Field(ge=1, description="Leave tensors with fewer elements alone.")
    ] = 1024
    residual: Annotated[
        str | None,
        Field(
            description="Carry what coding lost, instead: the same model before its weights were "
            "coded. Each coded layer gets a branch of low rank beside it, of so large a share of "
            f"its weights as rank_ratio says ({DEFAULT_SHARE} unless given)."
        ),
    ] = None
    sequential: Annotated[
        bool,
        Field(description="With data, fit layers one after the other, each for its input."),
    ] = True

    def model_post_init(self, context: Any, /) -> None:
        """Refuse combinations that mean nothing."""
        del context
        given = [name for name in GOALS if getattr(self, name)]
        if len(given) > 1:
            raise OptionError(
                f"{self.name}: {given[0]} and {given[1]} exclude each other; give one"
            )
        budget = next((name for name in BUDGETS if getattr(self, name)), None)
        if self.residual is not None and budget is not None:
            raise OptionError(
                f"{self.name}: residual and {budget} exclude each other; give rank_ratio"
            )
        parse_plan(self.plan, self.name)

    @property
    def strength(self) -> Strength:
        """What a search turns: multiplications where only speed is wanted, and else the size."""
        if self.allow == "speed":
            return Strength("macs", 0.98, 0.25)
        return Strength("size_ratio", 1.05, 4.0)

    @property
    def saves_bytes(self) -> bool:
        """Whether layers become smaller; branches are added to them."""
        return self.residual is None

    @property
    def reads(self) -> tuple[str, ...]:
        """The model before its weights were coded, where what that lost is carried."""
        return () if self.residual is None else (self.residual,)

    @property
    def wish(self) -> Wish:
        """What is asked for of each layer."""
        has_budget = self.macs is not None or self.size_ratio is not None
        return Wish(self.kinds, self.rank_multiple, self.energy, self.rank_ratio, has_budget)

    def apply(self, model: Model, context: Context) -> list[Verdict]:
        """Factorize every weight that is worth it."""
        weights, verdicts = self.candidates(model)
        found = {id(layer.weight.tensor): layer for layer in layers(model)}
        subjects: list[tuple[Site, Layer]] = []
        for weight in weights:
            try:
                site = self._site(weight)
            except ValueError as error:
                verdicts.append(skip(weight, str(error)))
            else:
                subjects.append((site, found[id(weight.tensor)]))
        if self.residual is not None:
            share = self.rank_ratio or DEFAULT_SHARE
            residuals = Residuals(load_model(self.residual), share, self.sequential)
            verdicts += residuals.carry(model, subjects, context)
            context.progress(1.0)
            return verdicts
        plan = self._plan(model, subjects, context.part(0, PLANNING))
        verdicts += [skip(site.weight, plan.refused[key]) for key, site in plan.skipped(subjects)]
        verdicts += self._factorize(model, subjects, plan, context.part(PLANNING, 1))
        context.progress(1.0)
        return verdicts

    def _site(self, weight: Weight) -> Site:
        if weight.size < self.min_elements:
            raise ValueError(f"is tiny ({weight.size} elements)")
        site = site_of(weight)
        if not np.isfinite(weight.load().astype(np.float32)).all():
            raise ValueError("holds NaN or infinity")
        return site

    def _plan(
        self, model: Model, subjects: Sequence[tuple[Site, Layer]], context: Context
    ) -> Plan:
        """Choose what each layer becomes, and tell what was decided by measuring."""
        planner = Planner(self.name, model, subjects, self.wish, context, self.allow)
        if self.plan:
            return planner.given(parse_plan(self.plan, self.name))
        if self.macs is not None:
            plan = planner.within_macs(self.macs)
        elif self.size_ratio is not None:
            plan = planner.within_bytes(self.size_ratio)
        else:
            plan = planner.each()
        if plan.is_measured:
            entries = tuple(
                f"{escape(site.weight.name)}={plan.choices[key]}"
                for site, _ in subjects
                if (key := id(site.weight.tensor)) in plan.choices
            )
            if entries:
                goals = dict.fromkeys(("rank_ratio", "macs", "size_ratio"))
                context.decide((self.model_copy(update={**goals, "plan": entries}),))
        return plan

    def _factorize(
        self,
        model: Model,
        subjects: Sequence[tuple[Site, Layer]],
        plan: Plan,
        context: Context,
    ) -> list[Verdict]:
        chosen = [each for each in subjects if id(each[0].weight.tensor) in plan.choices]
        before = {id(site.weight.tensor): site.weight.tensor.nbytes for site, _ in chosen}
        sites = {id(site.weight.tensor): site for site, _ in chosen}
        calibration = Calibration(sites, plan.choices, self.sequential)
        original = copy_model(model)
        calibration.run(model, original, context)
        scopes = {id(node): scope for scope in model.all_scopes() for node in scope.nodes}
        verdicts, made = [], {}
        has_data = context.samples is not None or context.statistics is not None
        for site, layer in chosen:
            key = id(site.weight.tensor)
            choice, solved = plan.choices[key], calibration.found[key]
            made[key] = split(site, choice, solved.arrays, scopes)
            how = [described(site, choice), solved.how]
            if has_data and not solved.how:
                how[1] = f"without data, since {_why_blind(layer)}"
            after = choice.nbytes(site) + solved.added
            reason = "; ".join(each for each in how if each)
            verdicts.append(
                change(site.weight, reason, before=before[key], after=after, error=solved.error)
            )
        replace_constants(model, made)
        return verdicts


def described(site: Site, choice: Choice) -> str:
    """Say what a layer became."""
    if choice.kind == PAIR:
        return f"two factors of rank {choice.rank} (of {site.full_rank})"
    sizes = " ".join("x".join(map(str, piece.shape)) for piece in choice.pieces(site))
    return f"{choice.kind} of rank {choice.rank}: {sizes}"


def _why_blind(layer: Layer) -> str:
    return f"its layer {layer.reason}" if layer.reason else "no sample runs its layer"
