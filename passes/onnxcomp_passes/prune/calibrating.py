"""Pruning every weight: by magnitude first, then each for the outputs of its layer."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from onnxcomp.graph import StoreValues
from onnxcomp.pipeline import change, skip
from onnxcomp.recovery import (
    add_bias,
    bias_bytes,
    relative_error,
    repair_layers,
    takes_bias,
)
from onnxcomp.statistics import layers
from onnxcomp_passes.prune.masks import matrix_form, sparsity_of
from onnxcomp_passes.prune.repairing import Aim, prune_weight
from onnxcomp_passes.prune.scoring import magnitude_scores
from onnxcomp_passes.prune.storing import sparse_store

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from onnxcomp.graph import Model, Weight
    from onnxcomp.pipeline import Context
    from onnxcomp.statistics import InputStatistics, Layer
    from onnxcomp.verdicts import Verdict
    from onnxcomp_passes.prune.masks import Pattern
    from onnxcomp_passes.prune.repairing import Criterion

WORTHWHILE = 0.9
"""The largest share of its bytes that a weight may take afterwards; else it stays as it is."""


@dataclass(eq=False)
class Pruner:
    """Prunes the weights of one model, and keeps verdicts on them.

    Args:
        levels: The share of each weight that becomes zero, by the identity of its constant.
        pattern: Which become zero together.
        criterion: By what it is chosen which, where there is data.
        sequential: Whether each layer is repaired for what those before now give.
        steps: Steps in which each layer is pruned, with a fit of what is left after each.

    Attributes:
        found: The verdicts, by the identity of the weight's constant.
        tables: What decodings share, and the file has by now; a function has its own.
    """

    levels: Mapping[int, float]
    pattern: Pattern
    criterion: Criterion
    sequential: bool
    steps: int
    found: dict[int, Verdict] = field(default_factory=dict)
    tables: defaultdict[str, set[tuple[object, ...]]] = field(
        default_factory=lambda: defaultdict(set)
    )

    def run(
        self, model: Model, original: Model, weights: Sequence[Weight], context: Context
    ) -> list[Verdict]:
        """Prune weights, repaired where there are samples or statistics.

        Args:
            model: The model.
            original: A copy of it from before.
            weights: What is pruned.
            context: Samples, or statistics of the original.
        """
        of_weight = {id(layer.weight.tensor): layer for layer in layers(model)}
        # The largest pays for a table that others share, so that no small one is left for it.
        for weight in sorted(weights, key=lambda each: -each.size):
            key = id(weight.tensor)
            self.found[key] = self._by_magnitude(of_weight[key])
        if context.samples is not None or context.statistics is not None:
            self._repair(model, original, context)
        return [self.found[id(weight.tensor)] for weight in weights]

    def _by_magnitude(self, layer: Layer) -> Verdict:
        weight, form = layer.weight, matrix_form(layer)
        values = weight.load()
        scores = magnitude_scores(form.to_matrices(values.astype(np.float32, copy=False)))
        mask = form.to_tensor(self.pattern.keep(scores, self.levels[id(weight.tensor)]))
        pruned = np.where(mask, values, values.dtype.type(0))
        present = self.tables[weight.function]
        store = sparse_store(weight, pruned, present)
        before = weight.tensor.nbytes
        after = before if store is None else store.added_bytes(present)
        if store is None or after > WORTHWHILE * before:
            zeros = f"{sparsity_of(pruned):.0%} zeros"
            return skip(
                weight, f"would hardly be smaller for {zeros} ({before} bytes, {after} stored)"
            )
        present.update(store.tables)
        weight.tensor.values = StoreValues(store)
        how = f"{sparsity_of(pruned):.1%} zeros by magnitude"
        lost = relative_error(values, pruned)
        return change(weight, how, before=before, after=after, error=lost)

    def _concerns(self, weight: Weight) -> bool:
        verdict = self.found.get(id(weight.tensor))
        return verdict is not None and verdict.verdict == "changed" and bool(verdict.error)

    def _repair(self, model: Model, original: Model, context: Context) -> None:
        for layer in layers(model):
            if layer.reason and self._concerns(layer.weight):
                key = id(layer.weight.tensor)
                self.found[key] = _without_data(self.found[key], f"its layer {layer.reason}")
        repair_layers(
            model,
            original,
            self._repair_layer,
            samples=context.samples,
            statistics=context.statistics,
            sequential=self.sequential,
            concerns=self._concerns,
            progress=context.progress,
        )

    def _repair_layer(self, layer: Layer, twin: Layer, inputs: InputStatistics) -> None:
        weight, key = layer.weight, id(layer.weight.tensor)
        verdict, values = self.found[key], twin.weight.load()
        if inputs.fit is None:
            self.found[key] = _without_data(verdict, "no sample runs its layer")
            return
        aim = Aim(self.criterion, self.pattern, self.levels[key], self.steps)
        pruned = prune_weight(layer, values, inputs, aim)
        present = self.tables[weight.function]
        store = sparse_store(weight, pruned.values, present)
        assert store is not None  # noqa: S101 - it was smaller with as many zeros
        # Whoever paid for a table that others share still does.
        after = verdict.bytes_after + store.nbytes - weight.tensor.nbytes
        weight.tensor.values = StoreValues(store)
        how = f"{sparsity_of(pruned.values):.1%} zeros by {pruned.how}"
        added = sum(bias_bytes(use, weight.dtype) for use in layer.uses if takes_bias(use))
        if pruned.shift.any() and after + added < verdict.bytes_before:
            for use in layer.uses:
                add_bias(use, pruned.shift, weight.dtype)
            after, how = after + added, f"{how}, mean corrected"
        lost = relative_error(values, pruned.values)
        self.found[key] = change(weight, how, before=verdict.bytes_before, after=after, error=lost)


def _without_data(verdict: Verdict, why: str) -> Verdict:
    reason = f"{verdict.reason}; without data, since {why}"
    return verdict.model_copy(update={"reason": reason})
