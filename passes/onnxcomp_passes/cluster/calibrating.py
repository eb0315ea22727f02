"""Coding clustered weights once more, for the outputs of their layers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from onnxcomp.graph import StoreValues, store_of
from onnxcomp.pipeline import change
from onnxcomp.recovery import (
    add_bias,
    bias_bytes,
    relative_error,
    repair_layers,
    takes_bias,
)
from onnxcomp.statistics import layers
from onnxcomp_passes.cluster.refining import refine

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from onnxcomp.graph import Model, Weight
    from onnxcomp.pipeline import Context
    from onnxcomp.statistics import InputStatistics, Layer
    from onnxcomp.verdicts import Verdict
    from onnxcomp_passes.cluster.coding import Coding
    from onnxcomp_passes.cluster.run import Run

    Code = Callable[[Weight, NDArray[Any]], Coding]
    """Codes values of a weight without data."""

    Verdicts = dict[int, Verdict]
    """Verdicts by the identity of the weight's constant."""

RECIPE_BYTES = 1024
"""What the recipe in the metadata takes, at most."""

NAME_BYTES = 96
"""What the name of a changed bias takes more than the old one's, at most."""


@dataclass(frozen=True)
class Calibration:
    """How clustered weights are repaired.

    Args:
        code: Codes values of a weight without data.
        run: What was coded.
        sequential: Whether each layer is repaired for what those before now give.
    """

    code: Code
    run: Run
    sequential: bool

    def apply(self, model: Model, original: Model, found: Verdicts, context: Context) -> None:
        """Repair every weight that was clustered with an error, and update its verdict.

        The verdict on one whose layer cannot be observed says why.

        Args:
            model: The model, clustered without data.
            original: A copy of it from before.
            found: The verdicts; updated.
            context: Samples, or statistics of the original.
        """
        if context.samples is None and context.statistics is None:
            return

        def concerns(weight: Weight) -> bool:
            verdict = found.get(id(weight.tensor))
            return verdict is not None and verdict.verdict == "changed" and bool(verdict.error)

        def repair(layer: Layer, twin: Layer, inputs: InputStatistics) -> None:
            key = id(layer.weight.tensor)
            found[key] = self._repaired(layer, twin.weight.load(), inputs, found[key])

        for layer in layers(model):
            if layer.reason and concerns(layer.weight):
                key = id(layer.weight.tensor)
                found[key] = _without_data(found[key], f"its layer {layer.reason}")
        repair_layers(
            model,
            original,
            repair,
            samples=context.samples,
            statistics=context.statistics,
            sequential=self.sequential,
            concerns=concerns,
            progress=context.progress,
        )

    def _repaired(
        self, layer: Layer, values: NDArray[Any], inputs: InputStatistics, verdict: Verdict
    ) -> Verdict:
        """Give a weight better codes of the same size; return the new verdict."""
        weight = layer.weight
        if inputs.fit is None:
            return _without_data(verdict, "no sample runs its layer")
        plain = self.run.coded.pop(id(weight.tensor)).coding
        refined = refine(layer, values, inputs, plain, lambda each: self.code(weight, each))
        present = self.run.tables[weight.function]
        before = store_of(weight.tensor)
        store = refined.coding.store(values, weight.opset, present)
        assert before is not None  # noqa: S101 - it was clustered
        weight.tensor.values = StoreValues(store)
        # Whoever paid for a table that others share still does.
        after = verdict.bytes_after + store.added_bytes(present) - before.added_bytes(present)
        how = f"{verdict.reason}; {refined.how}"
        added = _shift_bytes(layer)
        if refined.shift.any() and after + added < verdict.bytes_before:
            for use in layer.uses:
                add_bias(use, refined.shift, weight.dtype)
            after, how = after + added, f"{how}, mean corrected"
        lost = relative_error(values, store.load())
        return change(weight, how, before=verdict.bytes_before, after=after, error=lost)


def _without_data(verdict: Verdict, why: str) -> Verdict:
    reason = f"{verdict.reason}; without data, since {why}"
    return verdict.model_copy(update={"reason": reason})


def reserved_bytes(model: Model, found: Verdicts, context: Context) -> int:
    """Return what a clustered model will take beyond what it takes now, in bytes, at most.

    That is the recipe in its metadata and, with data, biases of layers that have none.
    """
    reserved = RECIPE_BYTES
    if context.samples is None and context.statistics is None:
        return reserved
    for layer in layers(model):
        verdict = found.get(id(layer.weight.tensor))
        if verdict is not None and verdict.verdict == "changed":
            reserved += _shift_bytes(layer) + NAME_BYTES * len(layer.uses)
    return reserved


def _shift_bytes(layer: Layer) -> int:
    return sum(bias_bytes(use, layer.weight.dtype) for use in layer.uses if takes_bias(use))
