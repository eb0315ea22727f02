"""The weights of a model made by a method, and repaired where there is data."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from numpy.linalg import LinAlgError

from onnxcomp.graph import StoreValues, store_of
from onnxcomp.layerwise.method import Method
from onnxcomp.layerwise.sequence import repair_layers
from onnxcomp.pipeline import change, skip
from onnxcomp.recovery import (
    Problem,
    add_bias,
    best_repair,
    bias_bytes,
    relative_error,
    takes_bias,
)
from onnxcomp.statistics import layers

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from onnxcomp.graph import Constant, Model, Weight
    from onnxcomp.pipeline import Context
    from onnxcomp.statistics import InputStatistics, Layer
    from onnxcomp.stores import Store
    from onnxcomp.verdicts import Verdict

    Floats = NDArray[np.float64]


RECIPE_BYTES, NAME_BYTES = 1024, 96
"""What the recipe in the metadata takes, and the name of a changed bias more than the old one's,
at most."""

CODED_SHARE = 0.1
"""Of the progress: for coding without data."""


AnyMethod = TypeVar("AnyMethod", bound=Method[Any, Any])


@dataclass(eq=False)
class Coder(Generic[AnyMethod]):
    """Codes the weights of one model, and keeps verdicts on them.

    Args:
        method: What becomes of each.
        sequential: Whether each layer is repaired for what those before now give.

    Attributes:
        choices: What was chosen for single weights.
        found: The verdicts.
        tables: What decodings share, and the file has by now; a function has its own.
    """

    method: AnyMethod
    sequential: bool
    choices: Mapping[Constant, Any] = field(default_factory=dict)
    found: dict[Constant, Verdict] = field(default_factory=dict)
    tables: defaultdict[str, set[tuple[object, ...]]] = field(
        default_factory=lambda: defaultdict(set)
    )

    def run(
        self, model: Model, original: Model, weights: Sequence[Weight], context: Context
    ) -> None:
        """Code weights, repaired where there is data.

        Args:
            model: The model; changed in place.
            original: A copy of it from before.
            weights: Weights of the model.
            context: Samples, or statistics of the original.
        """
        self.code(model, weights, context.part(0, CODED_SHARE))
        self.repair(model, original, context.part(CODED_SHARE, 1))

    def code(self, model: Model, weights: Sequence[Weight], context: Context) -> None:
        """Code weights without data.

        Args:
            model: The model; changed in place.
            weights: Weights of it.
            context: Told what is done.
        """
        self.tables = defaultdict(set)
        of_weight = {layer.weight.tensor: layer for layer in layers(model)}
        # The largest pays for a table that others share, so that no small one is left for it.
        ordered = sorted(weights, key=lambda each: -each.size)
        for done, weight in enumerate(ordered):
            self.found[weight.tensor] = self._coded(of_weight[weight.tensor])
            context.progress((done + 1) / len(ordered))

    def repair(self, model: Model, original: Model, context: Context) -> None:
        """Code again, for what its layer multiplies it with, every weight that lost something.

        The verdict on one of which that is not known says why.

        Args:
            model: The model, coded without data; changed in place.
            original: A copy of it from before.
            context: Samples, or statistics of the original; without either nothing is done.
        """
        if context.samples is None and context.statistics is None:
            return
        concerned = set()
        for layer in layers(model):
            if not self._has_lost(layer.weight):
                continue
            reason = self.method.why_plain(layer)
            if reason is None and layer.reason:
                reason = f"its layer {layer.reason}"
            if reason is None:
                concerned.add(layer.weight.tensor)
            elif reason:
                self._say(layer.weight, f"without data, since {reason}")
        repair_layers(
            model,
            original,
            self._repaired,
            context=context,
            sequential=self.sequential,
            concerns=lambda weight: weight.tensor in concerned,
        )

    def reserved_bytes(self, model: Model, context: Context) -> int:
        """Return what a coded model will take beyond what it takes now, in bytes, at most.

        That is the recipe in its metadata and, with data, biases of layers that have none.
        """
        reserved = RECIPE_BYTES
        if context.samples is None and context.statistics is None:
            return reserved
        for layer in layers(model):
            verdict = self.found.get(layer.weight.tensor)
            if verdict is not None and verdict.verdict == "changed":
                reserved += shift_bytes(layer) + NAME_BYTES * len(layer.uses)
        return reserved

    def verdicts(self, weights: Sequence[Weight]) -> list[Verdict]:
        """Return the verdicts on weights, in their order."""
        return [self.found[weight.tensor] for weight in weights]

    def _has_lost(self, weight: Weight) -> bool:
        verdict = self.found.get(weight.tensor)
        return verdict is not None and verdict.verdict == "changed" and bool(verdict.error)

    def _say(self, weight: Weight, what: str) -> None:
        verdict = self.found[weight.tensor]
        update = {"reason": f"{verdict.reason}; {what}"}
        self.found[weight.tensor] = verdict.model_copy(update=update)

    def _coded(self, layer: Layer) -> Verdict:
        weight, values = layer.weight, layer.weight.load()
        present, before = self.tables[weight.function], weight.tensor.nbytes
        try:
            made, how = self.method.plain(layer, values, self.choices.get(weight.tensor))
            store = self.method.store(layer, made, values, present)
        except ValueError as error:
            return skip(weight, str(error))
        after = store.added_bytes(present)
        reason = self.method.why_not(made, before, after)
        if reason is not None:
            return skip(weight, reason)
        weight.tensor.values = StoreValues(store)
        present.update(store.tables)
        lost = relative_error(values, store.load())
        return change(weight, how, before=before, after=after, error=lost)

    def _repaired(self, layer: Layer, twin: Layer, inputs: InputStatistics) -> None:
        """Give a weight better codes of the same size, and its layer a bias that fits them."""
        weight, values, moments = layer.weight, twin.weight.load(), inputs.fit
        if moments is None:
            self._say(weight, "without data, since no sample runs its layer")
            return
        shifts = all(takes_bias(use) for use in layer.uses)
        problem = Problem.of(layer.form.to_matrices(values), moments, shifts=shifts)
        choice = self.choices.get(weight.tensor)
        how = self.found[weight.tensor].reason
        candidates = self.method.candidates(layer, values, problem, choice, how)
        try:
            (made, how), shift = best_repair(problem, candidates, inputs.held_out)
            made, shift, last = self.method.finished(layer, problem, made, shift)
            store = self.method.store(layer, made, values, self.tables[weight.function])
        except LinAlgError:
            self._say(weight, "without data, since its columns are too much alike")
        except ValueError as error:
            self._say(weight, f"without data, since with it: {error}")
        else:
            self._install(layer, store, values, shift, f"{how}{last}")

    def _install(
        self, layer: Layer, store: Store, values: NDArray[Any], shift: Floats, how: str
    ) -> None:
        """Put a store in place of that of a weight, and add a shift to what its layer gives."""
        weight, verdict = layer.weight, self.found[layer.weight.tensor]
        present, before = self.tables[weight.function], store_of(weight.tensor)
        assert before is not None  # noqa: S101 - it was coded
        weight.tensor.values = StoreValues(store)
        # Whoever paid for a table that others share still does.
        after = verdict.bytes_after + store.added_bytes(present) - before.added_bytes(present)
        added = shift_bytes(layer)
        if shift.any() and after + added < verdict.bytes_before:
            for use in layer.uses:
                add_bias(use, shift, weight.dtype)
            after, how = after + added, f"{how}, mean corrected"
        lost = relative_error(values, store.load())
        self.found[weight.tensor] = change(
            weight, how, before=verdict.bytes_before, after=after, error=lost
        )


def shift_bytes(layer: Layer) -> int:
    """Return what a shift of the outputs of a layer adds to the file, in bytes."""
    return sum(bias_bytes(use, layer.weight.dtype) for use in layer.uses if takes_bias(use))
