"""Coding the weights of a model, and making up for what that costs."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from onnxcomp.graph import StoreValues
from onnxcomp.pipeline import change, skip
from onnxcomp.recovery import (
    add_bias,
    bias_bytes,
    relative_error,
    repair_at_once,
    repair_in_sequence,
)
from onnxcomp.statistics import layers, one_thread, walk, watch_inputs
from onnxcomp.stores import FOLDING_LIMIT, TOO_LARGE, AffineStore, leave_out_zeros
from onnxcomp_passes.quantize.forms import Form
from onnxcomp_passes.quantize.rounding import round_weight
from onnxcomp_passes.quantize.weight_grids import FINE

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from onnxcomp.graph import Model, Weight
    from onnxcomp.pipeline import Context
    from onnxcomp.runtime import Samples
    from onnxcomp.statistics import InputStatistics, Layer
    from onnxcomp.stores import Store
    from onnxcomp.verdicts import Verdict
    from onnxcomp_passes.quantize.coding import Coding
    from onnxcomp_passes.quantize.rounding import RoundedWeight

    Pair = tuple[Layer, Layer]

MOMENT_BYTES, KEPT_BYTES = 8, 4
KEPT_COLUMNS, KEPT_ELEMENTS = 1024, 1 << 22
MOST_BYTES = 1 << 27
"""What the second moments and columns of layers that are observed together may take."""

WIDEST, WIDEST_FINE = 8192, 2304
"""The most inputs of a layer that is repaired: below 8 bits, and from 8 bits on."""


@dataclass(eq=False)
class Coder:
    """Codes the weights of one model, and keeps verdicts on them.

    Args:
        coding: How.
        forms: The form of each layer, by its key; others are folded.
        sequential: Whether each layer is rounded for what those before now give.

    Attributes:
        found: The verdicts, by the identity of the weight's constant.
        floats: Weights that are stored as shorter floats, which nothing repairs.
        tables: What decodings share, and the file has by now; a function has its own.
    """

    coding: Coding
    forms: Mapping[str, Form]
    sequential: bool
    found: dict[int, Verdict] = field(default_factory=dict)
    floats: set[int] = field(default_factory=set)
    tables: defaultdict[str, set[tuple[object, ...]]] = field(
        default_factory=lambda: defaultdict(set)
    )

    def run(
        self, model: Model, original: Model, weights: Sequence[Weight], context: Context
    ) -> list[Verdict]:
        """Code weights, repaired where there are samples or statistics.

        Args:
            model: The model.
            original: A copy of it from before any rounding.
            weights: What is coded.
            context: Samples, or statistics of the original.
        """
        keys = {id(layer.weight.tensor): layer.key for layer in layers(model)}
        for weight in weights:
            key = id(weight.tensor)
            self.found[key] = self._nearest(weight, self.form(keys[key]))
        self._repair(model, original, context)
        return [self.found[id(weight.tensor)] for weight in weights]

    def form(self, key: str) -> Form:
        """Return the form of a layer's weight."""
        return self.forms.get(key, Form.FOLDED)

    def _concerns(self, weight: Weight) -> bool:
        verdict = self.found.get(id(weight.tensor))
        is_coded = id(weight.tensor) not in self.floats
        is_changed = verdict is not None and verdict.verdict == "changed" and bool(verdict.error)
        return is_coded and is_changed

    def _repair(self, model: Model, original: Model, context: Context) -> None:
        if context.samples is not None and self.sequential:
            repair_in_sequence(
                model,
                original,
                context.samples,
                self._repair_layer,
                concerns=self._concerns,
                progress=context.progress,
            )
            return
        if context.samples is not None:
            self._repair_in_parts(model, original, context.samples, context)
        elif context.statistics is not None:
            repair_at_once(
                model, original, context.statistics, self._repair_layer, concerns=self._concerns
            )

    def _repair_in_parts(
        self, model: Model, original: Model, samples: Samples, context: Context
    ) -> None:
        """Observe what layers multiply with, a few layers at a time, and repair them."""
        concerned = [
            pair
            for pair in zip(layers(model), layers(original), strict=True)
            if pair[0].uses and self._concerns(pair[0].weight) and self._is_narrow(pair[0])
        ]
        parts = list(_parts(concerned))
        for number, part in enumerate(parts):
            watches, inputs = watch_inputs([twin for _, twin in part])
            told = context.part(number / len(parts), (number + 1) / len(parts))
            walk((original,), watches, samples, told.progress)
            with one_thread():
                for (layer, twin), each in zip(part, inputs, strict=True):
                    self._repair_layer(layer, twin, each)

    def _is_narrow(self, layer: Layer) -> bool:
        """Whether repairing a layer is worth its memory: the more inputs, the more cancels out."""
        widest = WIDEST if self.coding.kind.most < FINE else WIDEST_FINE
        return layer.form.matrices[2] <= widest

    def _nearest(self, weight: Weight, form: Form) -> Verdict:
        values, before = weight.load(), weight.tensor.nbytes
        if form is Form.FOLDED and weight.size * weight.dtype.itemsize > FOLDING_LIMIT:
            return skip(weight, TOO_LARGE)
        if self.coding.kind.most == 0 and form is Form.FOLDED:
            self.floats.add(id(weight.tensor))
            floats = values.astype(self.coding.kind.dtype)
            store: Store = leave_out_zeros(
                AffineStore(weight.shape, weight.dtype, floats, weight.opset)
            )
        else:
            grid = self.coding.grid(weight, values, form)
            store = self.coding.store(weight, form, grid, grid.codes(values))
        present = self.tables[weight.function]
        after = store.added_bytes(present)
        if after >= before:
            return skip(weight, f"would not be smaller ({before} bytes, {after} stored)")
        present.update(store.tables)
        weight.tensor.values = StoreValues(store)
        how = self.coding.described(form)
        lost = relative_error(values, store.load())
        return change(weight, how, before=before, after=after, error=lost)

    def _repair_layer(self, layer: Layer, twin: Layer, inputs: InputStatistics) -> None:
        if inputs.fit is None:
            return
        weight, form = layer.weight, self.form(layer.key)
        values, verdict = twin.weight.load(), self.found[id(layer.weight.tensor)]
        rounded = round_weight(
            layer, values, inputs, lambda each: self.coding.grid(weight, each, form)
        )
        self.found[id(weight.tensor)] = self._changed(layer, form, values, rounded, verdict)

    def _changed(
        self,
        layer: Layer,
        form: Form,
        values: NDArray[Any],
        rounded: RoundedWeight,
        verdict: Verdict,
    ) -> Verdict:
        weight = layer.weight
        store = self.coding.store(weight, form, rounded.grid, rounded.codes)
        # Rounding may have made zeros, which a sparse store leaves out.
        after = verdict.bytes_after + store.nbytes - weight.tensor.nbytes
        weight.tensor.values = StoreValues(store)
        how = f"{verdict.reason}; {rounded.how}"
        added = sum(bias_bytes(use, weight.dtype) for use in layer.uses)
        if rounded.shift.any() and after + added < verdict.bytes_before:
            for use in layer.uses:
                add_bias(use, rounded.shift, weight.dtype)
            after, how = after + added, f"{how}, mean corrected"
        lost = relative_error(values, store.load())
        return change(weight, how, before=verdict.bytes_before, after=after, error=lost)


def _parts(pairs: Sequence[Pair]) -> Iterator[list[Pair]]:
    """Cut layers into runs of them whose second moments fit the memory together.

    Layers that read the same columns share their moments, and come next to each other.
    """
    part: list[Pair] = []
    total = 0
    for pair in pairs:
        groups, _, inputs = pair[0].form.matrices
        kept = min(KEPT_COLUMNS * groups * inputs, KEPT_ELEMENTS)
        size = MOMENT_BYTES * groups * inputs * inputs + KEPT_BYTES * kept
        if part and total + size > MOST_BYTES:
            yield part
            part, total = [], 0
        part.append(pair)
        total += size
    if part:
        yield part
