"""The pass: which weights are pruned, how far, and whether it pays."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field

from onnxcomp.errors import OptionError
from onnxcomp.layerwise import WeightPass
from onnxcomp.pipeline import Stage, Strength
from onnxcomp.stores import FOLDING_LIMIT, TOO_LARGE
from onnxcomp_passes.prune.levels import by_magnitude, by_threshold
from onnxcomp_passes.prune.masks import Pattern
from onnxcomp_passes.prune.method import Pruning
from onnxcomp_passes.prune.sensing import by_sensitivity

if TYPE_CHECKING:
    from collections.abc import Sequence

    from onnxcomp.graph import Constant, Model, Weight
    from onnxcomp.pipeline import Context

LOWEST_OPSET = 11
"""The opset that has the operators of a decoding."""


class Prune(WeightPass):
    """Prune: make weights zero, and store only the others and where they are.

    The file shrinks: half of the weights take 0.53 of its bytes, and `cluster` or `quantize`
    afterwards code only what is left. Zeros do not speed up ONNX Runtime's CPU provider, which
    multiplies with them like with any other number; nor do N:M patterns.

    Methods: SparseGPT (Frantar and Alistarh, 2023); ALPS (Meng et al., 2024); Wanda (Sun et al.,
    2023); least squares on what is left (Kwon et al., 2022).
    """

    name: ClassVar[str] = "prune"
    stage: ClassVar[Stage] = Stage.PRUNE
    least_opset: ClassVar[int] = LOWEST_OPSET

    sparsity: Annotated[
        float, Field(gt=0, lt=1, description="Share of the weights that become zero.")
    ] = 0.5
    threshold: Annotated[
        float | None,
        Field(gt=0, description="Prune what is smaller than this; instead of sparsity."),
    ] = None
    pattern: Annotated[
        str | None,
        Field(
            pattern=r"^\d+:\d+$",
            description="N:M, as 2:4: of every M neighbouring inputs N stay; instead of sparsity.",
        ),
    ] = None
    scope: Annotated[
        Literal["auto", "tensor", "row", "global"],
        Field(
            description="What loses the share: each tensor; each output of it; all together, by "
            "magnitudes relative to their tensor (global); or, with data, all together by what "
            "each means for the outputs (auto; without, tensor)."
        ),
    ] = "auto"
    criterion: Annotated[
        Literal["auto", "magnitude", "wanda", "sparsegpt"],
        Field(
            description="What stays: the largest weights; those whose inputs matter (wanda); or "
            "those that others cannot stand in for (sparsegpt, which auto is with data)."
        ),
    ] = "auto"
    block: Annotated[
        int, Field(ge=1, le=256, description="Neighbouring inputs that become zero together.")
    ] = 1
    steps: Annotated[
        int,
        Field(
            ge=1,
            le=16,
            description="With data, prune each layer in so many steps, its weights fitted anew "
            "after each.",
        ),
    ] = 1

    def model_post_init(self, context: Any, /) -> None:
        """Refuse combinations that contradict each other."""
        del context
        others = [name for name in ("threshold", "pattern") if getattr(self, name) is not None]
        self.check_budget([*others, *(["scope"] if self.scope != "auto" else [])])
        if self.threshold is not None and self.pattern is not None:
            raise OptionError(f"{self.name}: threshold and pattern exclude each other; give one")
        if self.pattern is not None and self.block > 1:
            raise OptionError(f"{self.name}: pattern and block exclude each other; give one")
        if self.pattern is not None:
            kept, group = map(int, self.pattern.split(":"))
            if not 0 < kept < group:
                raise OptionError(
                    f"{self.name}: pattern = {self.pattern!r}: of M neighbours fewer than M stay, "
                    "and one at least"
                )

    @property
    def strength(self) -> Strength:
        """What a search turns: the zeros."""
        return Strength("sparsity", 0.1, 0.95)

    @property
    def needs_data(self) -> bool:
        """Whether there must be data, to know what weights are multiplied with."""
        return self.criterion in {"wanda", "sparsegpt"}

    def method(self, weights: Sequence[Weight], context: Context) -> Pruning:
        """Return what makes weights zero.

        Raises:
            OptionError: The criterion needs data, and there is none.
        """
        del weights
        has_data = context.samples is not None or context.statistics is not None
        if self.needs_data and not has_data:
            raise OptionError(
                f"{self.name}: criterion = {self.criterion!r} needs data; give --data, or use "
                "magnitude"
            )
        criterion = self.criterion
        if criterion == "auto":
            criterion = "sparsegpt" if has_data else "magnitude"
        # Of N:M there are no steps: every group has its zeros at once.
        steps = self.steps if self.pattern is None else 1
        return Pruning(self._masks, criterion, steps, counts_bytes=self.has_budget)

    @property
    def _masks(self) -> Pattern:
        kept, group = map(int, (self.pattern or "0:0").split(":"))
        return Pattern(kept, group, self.block, by_row=self.scope == "row")

    def unsuitable(self, weight: Weight) -> str | None:
        """Return why a weight is left alone, in words that follow its name; None if it is not."""
        reason = super().unsuitable(weight)
        if reason is None and weight.size * weight.dtype.itemsize > FOLDING_LIMIT:
            reason = TOO_LARGE
        return reason

    def _senses(self, context: Context) -> bool:
        """Whether the share of each weight follows from what it means for the outputs."""
        has_data = context.samples is not None or context.statistics is not None
        is_free = self.threshold is None and self.pattern is None
        return self.scope == "auto" and is_free and has_data

    def choose(
        self, model: Model, weights: Sequence[Weight], method: Pruning, context: Context
    ) -> dict[Constant, float]:
        """Return the share of each weight that becomes zero."""
        if self.threshold is not None:
            shares = [by_threshold(weight, self.threshold) for weight in weights]
        elif self.scope == "global" and self.pattern is None:
            shares = by_magnitude(weights, self.sparsity)
        elif self._senses(context):
            without = ("sparsity", "criterion", "steps")
            curves = self.curves(model, weights, method, context, unit="elements", without=without)
            shares = by_sensitivity(weights, curves, self.sparsity)
        else:
            shares = [self.sparsity] * len(weights)
        return {weight.tensor: share for weight, share in zip(weights, shares, strict=True)}
