"""Biases as the integers that a kernel adds to its sums."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from onnxcomp.graph import Constant, StoreValues, store_of
from onnxcomp.statistics import layers
from onnxcomp.stores import AffineStore

if TYPE_CHECKING:
    from collections.abc import Collection

    import onnx_graphsurgeon as gs

    from onnxcomp.graph import Model
    from onnxcomp.statistics import Layer
    from passes.quantize.profiles import Profile

BIAS = 2
"""The input at which a Conv or Gemm takes its bias."""

LARGEST = np.iinfo(np.int32).max


def round_biases(model: Model, keys: Collection[str], profile: Profile) -> None:
    """Round the biases of layers that compute with integers.

    The sum of products of codes counts in steps of the activation's scale times the weight's, and
    so does the bias.

    Args:
        model: The model, whose activations and weights are rounded.
        keys: The layers.
        profile: Which operators need that.
    """
    for layer in layers(model):
        if layer.key not in keys:
            continue
        for use in layer.uses:
            given = use.node.inputs[BIAS : BIAS + 1]
            is_constant = bool(given) and isinstance(given[0], Constant)
            if use.node.op in profile.integer_bias and is_constant:
                _round(use.node, given[0], layer)


def _round(node: gs.Node, bias: Constant, layer: Layer) -> None:
    store = store_of(layer.weight.tensor)
    assert isinstance(store, AffineStore)  # noqa: S101 - an integer layer's
    assert store.scale is not None  # noqa: S101 - an integer layer's
    scale = float(node.inputs[0].inputs[0].inputs[1].values)
    steps = store.scale.astype(np.float64) * scale
    values = np.broadcast_to(bias.values.astype(np.float64).reshape(-1), steps.shape)
    codes = np.clip(np.rint(values / steps), -LARGEST, LARGEST).astype(np.int32)
    made = AffineStore(
        codes.shape, bias.dtype, codes, layer.weight.opset, steps.astype(np.float32)
    )
    node.inputs[BIAS] = Constant(f"{node.outputs[0].name}.bias", StoreValues(made))
