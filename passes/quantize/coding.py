"""Giving weights their integers: which form each is stored in, and what it then takes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from onnxcomp.graph import Constant, StoreValues
from onnxcomp.pipeline import change, skip
from onnxcomp.recovery import add_bias, bias_bytes, repair_at_once, repair_in_sequence, takes_bias
from onnxcomp.statistics import layers, observe
from onnxcomp.stores import AffineStore
from passes.quantize.inserting import integer_bias, read_scale
from passes.quantize.rounding import round_weight
from passes.quantize.weight_grids import weight_grid

if TYPE_CHECKING:
    from collections.abc import Collection

    from numpy.typing import NDArray

    from onnxcomp.graph import Model, Weight
    from onnxcomp.pipeline import Context
    from onnxcomp.statistics import InputStatistics, Layer
    from onnxcomp.verdicts import Verdict
    from passes.quantize.profiles import Profile
    from passes.quantize.rounding import RoundedWeight
    from passes.quantize.weight_grids import WeightGrid

    Verdicts = dict[int, Verdict]


@dataclass(eq=False)
class Coder:
    """Rounds weights of one model and keeps verdicts on them.

    Args:
        integer: Keys of the layers that compute with integers.
        profile: What their provider does.
        power_of_two: Whether scales are powers of two.
        sequential: Whether each layer is rounded for what those before now give.
    """

    integer: Collection[str]
    profile: Profile
    power_of_two: bool
    sequential: bool

    def run(self, model: Model, original: Model, weights: list[Weight], context: Context) -> Verdicts:
        """Round weights, and repair them where there are samples or statistics.

        Args:
            model: The model.
            original: A copy of it from before any rounding.
            weights: What is rounded.
            context: Samples, or statistics of the original.
        """
        keys = {id(layer.weight.tensor): layer.key for layer in layers(model)}
        found: Verdicts = {}
        for weight in weights:
            found[id(weight.tensor)] = self._nearest(weight, keys[id(weight.tensor)])

        def concerns(weight: Weight) -> bool:
            verdict = found.get(id(weight.tensor))
            return verdict is not None and verdict.verdict == "changed"

        def repair(layer: Layer, twin: Layer, inputs: InputStatistics) -> None:
            if inputs.fit is not None:
                key = id(layer.weight.tensor)
                rounded = round_weight(layer, twin.weight.load(), inputs, self._grid_of(layer.weight))
                found[key] = self._apply(layer, rounded, found[key])

        if context.samples is not None and self.sequential:
            repair_in_sequence(
                model, original, context.samples, repair, concerns=concerns, progress=context.progress
            )
        else:
            statistics = context.statistics
            if context.samples is not None:
                statistics = observe(original, context.samples, context.progress)
            if statistics is not None:
                repair_at_once(model, original, statistics, repair, concerns=concerns)
        for layer in layers(model):
            if layer.key in self.integer:
                self._round_biases(layer)
        return found

    def _grid_of(self, weight: Weight) -> Any:
        def make(values: NDArray[Any]) -> WeightGrid:
            return weight_grid(values, weight.output_axis, 127, power_of_two=self.power_of_two)

        return make

    def _store(self, weight: Weight, key: str, grid: WeightGrid, codes: NDArray[np.int32]) -> AffineStore:
        is_integer = key in self.integer
        # ONNX Runtime finds no integer kernel for a Gemm whose weight does not say that it is 0.
        zero_point = np.zeros(grid.scale.shape, np.int8) if is_integer and "Gemm" in weight.op_types else None
        return AffineStore(
            weight.shape,
            weight.dtype,
            codes.astype(np.int8),
            weight.opset,
            grid.scale,
            zero_point=zero_point,
            axis=grid.axis,
            is_dequantized=is_integer,
        )

    def _nearest(self, weight: Weight, key: str) -> Verdict:
        values = weight.load()
        grid = self._grid_of(weight)(values)
        store = self._store(weight, key, grid, grid.codes(values))
        before = weight.tensor.nbytes
        if store.nbytes >= before and key not in self.integer:
            return skip(weight, f"would not be smaller ({before} bytes, {store.nbytes} stored)")
        weight.tensor.values = StoreValues(store)
        how = "computed with integers" if key in self.integer else "stored"
        return change(weight, f"int8, {how}", before=before, after=store.nbytes, error=_lost(values, store))

    def _apply(self, layer: Layer, rounded: RoundedWeight, verdict: Verdict) -> Verdict:
        weight = layer.weight
        values = layer.weight.load()
        store = self._store(weight, layer.key, rounded.grid, rounded.codes)
        weight.tensor.values = StoreValues(store)
        after, how = store.nbytes, f"{verdict.reason}; {rounded.how}"
        if rounded.shift.any():
            for use in layer.uses:
                after += bias_bytes(use, weight.dtype)
                add_bias(use, rounded.shift, weight.dtype)
            how += ", mean corrected"
        return change(weight, how, before=verdict.bytes_before, after=after, error=_lost(values, store))

    def _round_biases(self, layer: Layer) -> None:
        for use in layer.uses:
            node = use.node
            if node.op not in self.profile.integer_bias or len(node.inputs) < 3:
                continue
            bias = node.inputs[2]
            scale = read_scale(node, 0)
            if scale is None or not isinstance(bias, Constant):
                continue
            store = layer.weight.tensor.held.store
            channels = np.broadcast_to(store.scale, (store.shape[store.axis],))
            values = np.broadcast_to(bias.values.reshape(-1), channels.shape)
            sums = (channels.astype(np.float64) * scale).astype(np.float32)
            node.inputs[2] = Constant(f"{bias.name}.{node.outputs[0].name}.integer", integer_bias(values, sums, layer.weight.opset))


def _lost(values: NDArray[Any], store: AffineStore) -> float:
    total = float(np.sum(np.square(values, dtype=np.float64)))
    missed = float(np.sum(np.square(values.astype(np.float64) - store.load())))
    return float(np.sqrt(missed / total)) if total else 0.0
