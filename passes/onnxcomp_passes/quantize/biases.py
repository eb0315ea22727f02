"""Biases as the integers that a kernel adds to its sums."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from onnxcomp.graph import Constant, StoreValues, constant_of, store_of
from onnxcomp.runtime.dtypes import is_float
from onnxcomp.statistics import layers
from onnxcomp.stores import AffineStore
from onnxcomp_passes.quantize.grids import SMALLEST_SCALE, largest
from onnxcomp_passes.quantize.shielding import ROUNDED_UNASKED
from onnxcomp_passes.quantize.weight_grids import WeightGrid

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    import onnx_graphsurgeon as gs
    from numpy.typing import NDArray

    from onnxcomp.graph import Model
    from onnxcomp.statistics import Layer
    from onnxcomp_passes.quantize.profiles import Profile

    Floats = NDArray[np.float64]

BIAS = 2
"""The input at which a Conv or Gemm takes its bias."""

LARGEST = 2**30
"""Of a bias; the rest of 32 bits is left to the products that are added to it."""


def round_biases(model: Model, keys: Collection[str], profile: Profile) -> None:
    """Round the biases of layers that compute with integers.

    The sum of products of codes counts in steps of the activation's scale times the weight's, and
    so does the bias. Where weights are all but zero beside it, as those of pruned channels, it
    would not fit, and their steps are made larger.

    Args:
        model: The model, whose activations and weights are rounded.
        keys: The layers.
        profile: Which operators need that.
    """
    for layer, nodes in _biased(model, keys, profile.integer_bias):
        for node in nodes:
            _make_room(node, layer)
        for node in nodes:
            _round(node, layer)


def make_room(model: Model, keys: Collection[str]) -> None:
    """Let the biases of layers that compute with floats of 8 bits fit in 32 bits.

    Between DequantizeLinear and QuantizeLinear ONNX Runtime (WeightBiasQuantization) makes them
    integers in the same steps, unasked, and those that do not fit come out wrong: at the scales of
    E5M2, most.

    Args:
        model: The model, whose activations and weights are rounded.
        keys: The layers.
    """
    for layer, nodes in _biased(model, keys, ROUNDED_UNASKED):
        for node in nodes:
            _make_room(node, layer)


def _biased(
    model: Model, keys: Collection[str], operators: Collection[str]
) -> Iterator[tuple[Layer, list[gs.Node]]]:
    """Yield layers with those of their operators, of these types, that add a constant bias."""
    for layer in layers(model):
        if layer.key in keys:
            yield (
                layer,
                [
                    use.node
                    for use in layer.uses
                    if use.node.op in operators
                    and any(isinstance(each, Constant) for each in use.node.inputs[BIAS:][:1])
                ],
            )


def _operands(node: gs.Node, layer: Layer) -> tuple[AffineStore, Floats, Floats, float]:
    """Return the store of a weight and its scale, the bias, and the scale of the activation."""
    store = store_of(layer.weight.tensor)
    assert isinstance(store, AffineStore)  # noqa: S101 - an integer layer's
    assert store.scale is not None  # noqa: S101 - an integer layer's
    scale = store.scale.astype(np.float64)
    bias = constant_of(node.inputs[BIAS]).values.astype(np.float64).reshape(-1)
    activation = float(constant_of(node.inputs[0].inputs[0].inputs[1]).values)
    return store, scale, np.broadcast_to(bias, scale.shape), activation


def _make_room(node: gs.Node, layer: Layer) -> None:
    """Make the steps of a weight so large that its bias fits."""
    store, scale, bias, activation = _operands(node, layer)
    least = np.abs(bias) / (activation * LARGEST)
    if (least <= scale).all():
        return
    dtype = store.codes.dtype
    # Floats stay as exact where steps are a power of two times as large.
    unit = scale if is_float(dtype) else 1.0
    powers = unit * 2.0 ** np.ceil(np.log2(np.maximum(least, SMALLEST_SCALE) / unit))
    larger = np.where(least <= scale, scale, powers).astype(np.float32)
    floats = dtype if is_float(dtype) else None
    grid = WeightGrid(larger, store.axis, int(largest(dtype)), floats=floats)
    codes = grid.codes(store.load()).astype(store.codes.dtype)
    layer.weight.tensor.values = StoreValues(replace(store, scale=larger, codes=codes))


def _round(node: gs.Node, layer: Layer) -> None:
    _, scale, values, activation = _operands(node, layer)
    bias, steps = constant_of(node.inputs[BIAS]), scale * activation
    codes = np.rint(values / steps).astype(np.int32)
    made = AffineStore(
        codes.shape, bias.dtype, codes, layer.weight.opset, steps.astype(np.float32)
    )
    node.inputs[BIAS] = Constant(f"{node.outputs[0].name}.bias", StoreValues(made))
