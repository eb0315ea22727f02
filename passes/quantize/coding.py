"""Weights as codes: their grids, their stores, and what makes up for the error."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from onnxcomp.graph import StoreValues
from onnxcomp.pipeline import change, skip
from onnxcomp.recovery import add_bias, bias_bytes, repair_at_once, repair_in_sequence
from onnxcomp.statistics import Statistics, layers, walk, watch_inputs
from onnxcomp.stores import FOLDING_LIMIT, AffineStore, Codebook, store_codes
from passes.quantize.forms import CODEBOOKS, WEIGHT_TYPES, Form
from passes.quantize.rounding import round_weight
from passes.quantize.weight_grids import WeightGrid, block_grid, channel_grid

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from onnxcomp.graph import Model, Weight
    from onnxcomp.pipeline import Context
    from onnxcomp.statistics import InputStatistics, Layer
    from onnxcomp.stores import Store
    from onnxcomp.verdicts import Verdict
    from passes.quantize.forms import WeightType
    from passes.quantize.rounding import RoundedWeight

TOO_LARGE = "is larger than 1 GiB, and ONNX Runtime folds nothing that large"


@dataclass(frozen=True)
class Coding:
    """How the weights of a model are coded.

    Args:
        kind: The element type of weights whose layers compute with floats.
        name: What verdicts call it.
        largest_code: Of those whose layers compute with integers, which are int8.
        block_size: Inputs of a block, for layers that multiply blocks; 0: a scale a channel.
        power_of_two: Whether scales are powers of two.
    """

    kind: WeightType
    name: str
    largest_code: int
    block_size: int
    power_of_two: bool

    def grid(self, weight: Weight, values: NDArray[Any], form: Form) -> WeightGrid:
        """Return the grid of a weight."""
        kind = self._kind(form)
        if form is Form.BLOCKS:
            return block_grid(values, self.block_size, kind.most, power_of_two=self.power_of_two)
        return channel_grid(
            values,
            weight.output_axis,
            kind.most,
            has_zero=kind.has_zero,
            power_of_two=self.power_of_two,
        )

    def store(
        self, weight: Weight, form: Form, grid: WeightGrid, codes: NDArray[np.int32]
    ) -> Store:
        """Return the store of a weight's codes."""
        kind = self._kind(form)
        if form is Form.FOLDED and kind.most < CODEBOOKS:
            return _in_codebook(weight, grid, codes)
        is_dequantized = form in {Form.INTEGER, Form.BLOCKS}
        # ONNX Runtime finds no integer kernel for a Gemm whose weight does not name its zero.
        has_zero_point = form is Form.INTEGER and "Gemm" in weight.op_types
        return AffineStore(
            weight.shape,
            weight.dtype,
            codes.astype(kind.dtype),
            weight.opset,
            grid.scale,
            zero_point=np.zeros(grid.scale.shape, kind.dtype) if has_zero_point else None,
            axis=grid.axis,
            block_size=grid.block_size,
            is_dequantized=is_dequantized,
        )

    def shrinks(self, weight: Weight, form: Form) -> bool:
        """Whether a weight takes fewer bytes in a form whose layers compute with integers."""
        scale = np.ones(weight.shape[weight.output_axis], np.float32)
        grid = WeightGrid(scale, weight.output_axis, self.largest_code)
        store = self.store(weight, form, grid, np.zeros(weight.shape, np.int32))
        return store.added_bytes(()) < weight.tensor.nbytes

    def described(self, form: Form) -> str:
        """Say for a verdict what is done."""
        name = "int8" if form in {Form.INTEGER, Form.DYNAMIC} else self.name
        return f"{name}, {form.value}"

    def _kind(self, form: Form) -> WeightType:
        if form in {Form.INTEGER, Form.DYNAMIC}:
            return replace(WEIGHT_TYPES["int8"], most=self.largest_code)
        return self.kind


def _in_codebook(weight: Weight, grid: WeightGrid, codes: NDArray[np.int32]) -> Store:
    """Store few codes as those of a codebook, which every opset has and which packs any number."""
    levels = np.arange(-grid.most, grid.most + 1)
    levels = levels if grid.has_zero else levels[levels != 0]
    moved = np.moveaxis(codes, grid.axis, 0).reshape(-1)
    return store_codes(
        np.searchsorted(levels, moved).astype(np.uint8),
        Codebook(levels.astype(np.float32)[:, None]),
        shape=weight.shape,
        dtype=weight.dtype,
        opset=weight.opset,
        axis=grid.axis,
        scale=grid.scale.reshape([-1, *[1] * (len(weight.shape) - 1)]),
    )


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
        statistics = context.statistics
        if context.samples is not None:
            statistics = self._observed(original, model, context)
        if statistics is not None:
            repair_at_once(
                model, original, statistics, self._repair_layer, concerns=self._concerns
            )

    def _observed(self, original: Model, model: Model, context: Context) -> Statistics:
        """Observe what the layers that are coded multiply with."""
        assert context.samples is not None  # noqa: S101 - the caller has looked
        concerned = [
            twin
            for layer, twin in zip(layers(model), layers(original), strict=True)
            if layer.uses and self._concerns(layer.weight)
        ]
        watches, inputs = watch_inputs(concerned)
        walk((original,), watches, context.samples, context.progress)
        by_key = {layer.key: each for layer, each in zip(concerned, inputs, strict=True)}
        return Statistics("", by_key)

    def _nearest(self, weight: Weight, form: Form) -> Verdict:
        values, before = weight.load(), weight.tensor.nbytes
        if form is Form.FOLDED and weight.size * weight.dtype.itemsize > FOLDING_LIMIT:
            return skip(weight, TOO_LARGE)
        if self.coding.kind.most == 0 and form is Form.FOLDED:
            self.floats.add(id(weight.tensor))
            store: Store = AffineStore(
                weight.shape, weight.dtype, values.astype(self.coding.kind.dtype), weight.opset
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
        lost = relative_error(values, store)
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
        weight.tensor.values = StoreValues(store)
        # A repaired weight has as many codes and scales as it had.
        after, how = verdict.bytes_after, f"{verdict.reason}; {rounded.how}"
        added = sum(bias_bytes(use, weight.dtype) for use in layer.uses)
        if rounded.shift.any() and after + added < verdict.bytes_before:
            for use in layer.uses:
                add_bias(use, rounded.shift, weight.dtype)
            after, how = after + added, f"{how}, mean corrected"
        lost = relative_error(values, store)
        return change(weight, how, before=verdict.bytes_before, after=after, error=lost)


def relative_error(values: NDArray[Any], store: Store) -> float:
    """Return the Frobenius norm of what a store misses, relative to that of the weight."""
    wanted = values.astype(np.float64)
    total = float(np.linalg.norm(wanted))
    return float(np.linalg.norm(wanted - store.load())) / total if total else 0.0
