"""What passes that change weights one by one have as options, and how they choose by them."""

from __future__ import annotations

import json
from abc import abstractmethod
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import numpy as np
from pydantic import Field

from onnxcomp.errors import OptionError
from onnxcomp.graph import copy_model, count_bytes, raise_opset
from onnxcomp.layerwise.budget import Allotment, keep_within
from onnxcomp.layerwise.coding import Coder
from onnxcomp.layerwise.curves import measured
from onnxcomp.pipeline import Pass, skip

if TYPE_CHECKING:
    from collections.abc import Sequence

    from onnxcomp.graph import Constant, Model, Weight
    from onnxcomp.layerwise.curves import Curves
    from onnxcomp.layerwise.method import Method
    from onnxcomp.pipeline import Context
    from onnxcomp.verdicts import Verdict


CHOOSING_SHARE = 0.4
"""Of the progress: for choosing and coding; the rest is for repairs."""


class WeightPass(Pass):
    """A pass that changes weights one by one, each as much as a file of some size allows.

    A subclass says what becomes of one by `method`; all else follows.
    """

    least_opset: ClassVar[int]
    """That which has the operators of all decodings."""

    op_type: Annotated[
        tuple[str, ...],
        Field(description="Only weights that an operator of one of these types reads, as Conv."),
    ] = ()
    min_elements: Annotated[
        int, Field(ge=1, description="Leave tensors with fewer elements alone.")
    ] = 256
    size_ratio: Annotated[
        float | None,
        Field(
            gt=1,
            description="Choose for each tensor, in place of one strength for all, for a file so "
            "many times smaller.",
        ),
    ] = None
    max_bytes: Annotated[
        int | None,
        Field(
            ge=1,
            description="Choose for each tensor, in place of one strength for all, for a file of "
            "so many bytes at most.",
        ),
    ] = None
    sequential: Annotated[
        bool,
        Field(description="With data, repair layers one after the other, each for its input."),
    ] = True
    depthwise: Annotated[
        bool, Field(description="Change depthwise convolutions too; they lose most by it.")
    ] = False

    def check_budget(self, others: Sequence[str]) -> None:
        """Refuse a budget beside another, or beside options that say what all weights become.

        Args:
            others: Names of such options that are given.

        Raises:
            OptionError: There is one.
        """
        if self.size_ratio is not None and self.max_bytes is not None:
            raise OptionError(
                f"{self.name}: size_ratio and max_bytes exclude each other; give one"
            )
        if self.has_budget and others:
            raise OptionError(
                f"{self.name}: size_ratio and max_bytes choose for each tensor; leave out "
                f"{', '.join(others)}"
            )

    @property
    def has_budget(self) -> bool:
        """Whether what a weight becomes is chosen for each, by the size of the file."""
        return self.size_ratio is not None or self.max_bytes is not None

    def unsuitable(self, weight: Weight) -> str | None:
        """Return why a weight is left alone, in words that follow its name; None if it is not."""
        if self.op_type and not set(self.op_type) & set(weight.op_types):
            return "was not selected by op_type"
        if weight.is_depthwise and not self.depthwise:
            return "belongs to a depthwise convolution"
        if weight.size < self.min_elements:
            return f"is tiny ({weight.size} elements)"
        if not np.isfinite(weight.load()).all():
            return "holds NaN or infinity"
        return None

    def suitable(self, model: Model) -> tuple[list[Weight], list[Verdict]]:
        """Return the weights that may be changed, and verdicts on all others."""
        weights, skipped = self.candidates(model)
        pairs = [(weight, self.unsuitable(weight)) for weight in weights]
        skipped += [skip(weight, reason) for weight, reason in pairs if reason is not None]
        return [weight for weight, reason in pairs if reason is None], skipped

    def apply(self, model: Model, context: Context) -> list[Verdict]:
        """Change every weight that is worth it; with data, repair each for what it now gets."""
        limit = self._limit(model)
        raise_opset(model, self.least_opset)
        verdicts = self.begin(model)
        original = copy_model(model)
        weights, skipped = self.suitable(model)
        coder = Coder(self.method(weights, context), self.sequential)
        choosing, repairing = context.part(0, CHOOSING_SHARE), context.part(CHOOSING_SHARE, 1)
        if limit is not None:
            self._code_within(limit, model, weights, coder, choosing)
        else:
            coder.choices = self.choose(model, weights, coder.method, choosing)
            coder.code(model, weights, choosing.part(1, 1))
        coder.repair(model, original, repairing)
        context.progress(1.0)
        return [*verdicts, *skipped, *coder.verdicts(weights)]

    def begin(self, model: Model) -> list[Verdict]:
        """Rewrite the model before weights are looked at; return verdicts on those that go."""
        del model
        return []

    @abstractmethod
    def method(self, weights: Sequence[Weight], context: Context) -> Method[Any, Any]:
        """Return what becomes of weights.

        Args:
            weights: The weights.
            context: Samples, or statistics of the model.
        """

    def choose(
        self, model: Model, weights: Sequence[Weight], method: Any, context: Context
    ) -> dict[Constant, Any]:
        """Return what each weight becomes where there is no budget; nothing if all the same.

        Args:
            model: The model; not changed.
            weights: Weights of it.
            method: What becomes of them.
            context: Samples, or statistics of the model.
        """
        del model, weights, method, context
        return {}

    def curves(
        self,
        model: Model,
        weights: Sequence[Weight],
        method: Method[Any, Any],
        context: Context,
        *,
        unit: str = "bytes",
        without: Sequence[str] = (),
    ) -> Curves:
        """Return what weights take and cost by each choice, measured once for all budgets.

        Args:
            model: The model; not changed.
            weights: Weights of it.
            method: What becomes of them.
            context: Samples, or statistics of the model.
            unit: What its curves count in place of bytes.
            without: Options besides those of the budget that do not matter to it.
        """
        setting = self.model_dump_json(exclude={"size_ratio", "max_bytes", "sequential", *without})
        return measured(model, weights, method, f"{unit} {self.name} {setting}", context)

    def _limit(self, model: Model) -> int | None:
        """Return the most bytes of the file, for a model that came; None without a budget."""
        if self.size_ratio is not None:
            return int(count_bytes(model) / self.size_ratio)
        return self.max_bytes

    def _code_within(
        self,
        limit: int,
        model: Model,
        weights: Sequence[Weight],
        coder: Coder[Any],
        context: Context,
    ) -> None:
        """Choose for each weight so that the file keeps within a limit, and code them.

        Raises:
            OptionError: There are no choices.
            ReachError: None is small enough.
        """
        method = coder.method
        if not method.choices:
            raise OptionError(f"{self.name}: there are no choices for a size; leave it out")
        curves = self.curves(model, weights, method, context)
        is_repaired = context.samples is not None and self.sequential
        allotment = Allotment(model, weights, method.choices, curves, is_repaired=is_repaired)
        names = len(json.dumps([self.include, self.exclude, self.op_type]))

        def code(chosen: dict[Constant, Any]) -> int:
            coder.choices = chosen
            coder.code(model, weights, context.part(1, 1))
            return names + coder.reserved_bytes(model, context)

        keep_within(limit, model, allotment, code, name=self.name)
