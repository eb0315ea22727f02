"""Scales and shifts folded into the Conv, ConvTranspose or Gemm before them.

BatchNormalization in inference is a scale and a shift of each channel, and so are a Mul or an Add
of constants, which the weight and the bias take over: ``s * (w x + b) + shift`` with, for a
BatchNormalization, ``s = scale / sqrt(variance + epsilon)`` (Jacob et al. 2018, section 3.2).
onnxscript has rules for it too, but they take training for inference, and stop at a bias that
another layer reads.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from onnxcomp.graph import constant_of
from onnxcomp_passes.simplify.affine import BIAS_PLACE, STANDARD, affine

if TYPE_CHECKING:
    import onnx_graphsurgeon as gs
    from numpy.typing import NDArray

    from onnxcomp_passes.simplify.affine import Affine, Floats, Place

LAYERS = {"Conv", "ConvTranspose", "Gemm"}


def fold_backward(place: Place) -> None:
    """Fold scales and shifts of one scope into the layers before them.

    They stay where what they read has other readers or is given out, where they or the layer have
    parameters that are computed, stored or must not change, and where another layer reads the same
    weight.
    """
    for node in list(place.scope.nodes):
        found = affine(node, place.may_fold)
        layer = None if found is None else place.only_maker(found.source)
        is_layer = layer is not None and layer.op in LAYERS and layer.domain in STANDARD
        if found is not None and layer is not None and is_layer:
            _fold(place, layer, found)


def _fold(place: Place, layer: gs.Node, found: Affine) -> None:
    weight, bias = layer.inputs[1], _bias(layer)
    if not place.may_fold(weight) or not (bias is None or place.may_fold(bias)):
        return
    if len(weight.outputs) != 1:
        return
    with np.errstate(all="ignore"):
        folded = _folded(layer, found, weight.values.astype(np.float64))
    if folded is None:
        return
    scaled, moved = (each.astype(weight.dtype) for each in folded)
    if not (np.isfinite(scaled).all() and np.isfinite(moved).all()):
        return
    needs_bias = bias is not None or moved.any()
    place.fold(found, layer, scaled, moved if needs_bias else None)
    layer.attrs.pop("beta", None)
    output = found.node.outputs[0]
    place.remove(found.node)
    layer.outputs.clear()
    layer.outputs.append(output)


def _bias(layer: gs.Node) -> gs.Tensor | None:
    """Return a layer's bias; None where it has none."""
    given = [each for each in layer.inputs[BIAS_PLACE:] if each.name]
    return given[0] if given else None


def _folded(layer: gs.Node, found: Affine, weight: Floats) -> tuple[Floats, Floats] | None:
    """Return the layer's weight and bias with the scale and shift in them, if shapes fit."""
    bias = _bias(layer)
    factors = found.factors(2 if layer.op == "Gemm" else weight.ndim, 1)
    old_bias = np.zeros(1) if bias is None else _row(constant_of(bias).values)
    channels = _output_channels(layer, weight.shape)
    if factors is None or old_bias is None:
        return None
    if any(len(each) not in {1, channels} for each in (*factors, old_bias)):
        return None
    scale, shift = factors
    scaled = _scaled(layer, weight, np.broadcast_to(scale, channels))
    moved = scale * old_bias * layer.attrs.get("beta", 1.0) + shift
    return scaled, np.broadcast_to(moved, channels)


def _output_channels(layer: gs.Node, shape: tuple[int, ...]) -> int:
    """Return how many channels a layer gives, whose weight has this shape."""
    if layer.op == "ConvTranspose":
        return shape[1] * int(layer.attrs.get("group", 1))
    return shape[1 if layer.op == "Gemm" and not layer.attrs.get("transB", 0) else 0]


def _scaled(layer: gs.Node, weight: Floats, scale: Floats) -> Floats:
    """Scale each output channel of a weight.

    Args:
        layer: The layer that reads it.
        weight: Conv: (out, in / groups, ...); ConvTranspose: (in, out / groups, ...); Gemm:
            (in, out), or (out, in) where it is transposed.
        scale: (out,).
    """
    if layer.op == "ConvTranspose":
        groups = int(layer.attrs.get("group", 1))
        grouped = weight.reshape(groups, -1, *weight.shape[1:])
        by_group = scale.reshape(groups, 1, -1, *[1] * (weight.ndim - 2))
        return (grouped * by_group).reshape(weight.shape)
    axis = 1 if layer.op == "Gemm" and not layer.attrs.get("transB", 0) else 0
    return weight * scale.reshape([-1 if place == axis else 1 for place in range(weight.ndim)])


def _row(bias: NDArray[Any]) -> Floats | None:
    """Return a bias as one number a channel or one for all; None where samples differ."""
    if bias.ndim > 1 and bias.shape[0] != 1:
        return None
    return bias.astype(np.float64).reshape(-1)
