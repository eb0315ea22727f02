"""BatchNormalization folded into the Conv, ConvTranspose or Gemm before it.

In inference it is a scale and a shift of each channel, which the weight and the bias take over:
``s * (w x + b - mean) + shift`` with ``s = scale / sqrt(variance + epsilon)`` (Jacob et al. 2018,
section 3.2). onnxscript has rules for it too, but they take training for inference, and stop at a
bias that another layer reads.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from onnxcomp.graph import Constant, is_fixed, store_of

if TYPE_CHECKING:
    import onnx_graphsurgeon as gs
    from numpy.typing import NDArray

    from onnxcomp.graph import Graph, Model
    from passes.simplify.ledger import Ledger

FIRST_OPSET = 7
"""Before, an attribute told inference from training."""

LAYERS = {"Conv", "ConvTranspose", "Gemm"}

STANDARD = {None, "", "ai.onnx"}
"""Names of the domain of the standard operators."""

EPSILON = 1e-5
"""ONNX's default."""

INTO = "BatchNormalization folded into it"
AWAY = "folded away with its BatchNormalization"


Test = Callable[[Any], bool]


def fold_normalisations(model: Model, may_change: Test, ledger: Ledger) -> None:
    """Fold every BatchNormalization of a model that can be.

    It stays where it is in training, where its input has other readers, where it or the layer
    before it has parameters that are computed, stored, may be overridden by a caller or must not
    change, and where another layer reads the same weight.

    Args:
        model: The model; changed in place.
        may_change: Whether a constant may be changed or removed.
        ledger: Told what became of which weight.
    """
    outputs = {id(each) for scope in model.all_scopes() for each in scope.outputs}
    names = {
        tensor.name
        for scope in model.all_scopes()
        for tensors in (scope.inputs, scope.constants, *(each.outputs for each in scope.nodes))
        for tensor in tensors
    }

    def may_fold(tensor: Any) -> bool:
        is_plain = is_fixed(tensor) and store_of(tensor) is None
        return is_plain and id(tensor) not in outputs and may_change(tensor)

    for top in (model, *model.local_functions):
        for scope in top.scopes():
            for node in list(scope.nodes):
                layer = _layer_before(node, scope) if top.opset >= FIRST_OPSET else None
                if layer is not None and id(layer.outputs[0]) not in outputs:
                    _fold(_Pair(scope, layer, node), may_fold, names, ledger)
    _drop_unread(model, outputs, ledger)


def _layer_before(node: gs.Node, scope: Graph) -> gs.Node | None:
    """Return the layer that only a BatchNormalization in inference reads; None otherwise."""
    if node.op != "BatchNormalization" or node.domain not in STANDARD:
        return None
    is_training = (
        node.attrs.get("training_mode", 0) or len([x for x in node.outputs if x.name]) > 1
    )
    tensor = node.inputs[0]
    if is_training or node.attrs.get("spatial", 1) != 1 or len(tensor.outputs) != 1:
        return None
    if not tensor.inputs or not any(each is tensor.inputs[0] for each in scope.nodes):
        return None
    layer = tensor.inputs[0]
    return layer if layer.op in LAYERS and layer.domain in STANDARD else None


@dataclass(frozen=True)
class _Pair:
    """A layer and the BatchNormalization after it, in one scope."""

    scope: Graph
    layer: gs.Node
    normalisation: gs.Node

    @property
    def bias(self) -> Any:
        """The layer's bias; None where it has none."""
        given = [each for each in self.layer.inputs[2:] if each.name]
        return given[0] if given else None

    def remove(self) -> None:
        """Let the layer give what the BatchNormalization gave."""
        output = self.normalisation.outputs[0]
        self.normalisation.inputs.clear()
        self.normalisation.outputs.clear()
        self.layer.outputs.clear()
        self.layer.outputs.append(output)
        self.scope.nodes = [each for each in self.scope.nodes if each is not self.normalisation]


def _fold(pair: _Pair, may_fold: Test, names: set[str], ledger: Ledger) -> None:
    layer, bias, parameters = pair.layer, pair.bias, list(pair.normalisation.inputs[1:])
    weight = layer.inputs[1]
    involved = [weight, *parameters] + ([] if bias is None else [bias])
    if not all(may_fold(each) for each in involved) or len(weight.outputs) != 1:
        return
    scale, shift, mean, variance = (each.values.astype(np.float64) for each in parameters)
    epsilon = float(pair.normalisation.attrs.get("epsilon", EPSILON))
    with np.errstate(all="ignore"):
        scale = scale / np.sqrt(variance + epsilon)
        scaled = _scaled(layer, weight.values.astype(np.float64), scale)
        old_bias = np.zeros(1) if bias is None else _row(bias.values)
        if scaled is None or old_bias is None:
            return
        old_bias = old_bias * layer.attrs.get("beta", 1.0)
        moved = (scale * (old_bias - mean) + shift).astype(weight.dtype)
        scaled = scaled.astype(weight.dtype)
    if not (np.isfinite(scaled).all() and np.isfinite(moved).all()):
        return
    for parameter in parameters:
        ledger.reasons.setdefault(id(parameter.held), AWAY)
    weight_held = id(weight.held)
    ledger.set_values(weight, scaled, INTO)
    layer.attrs.pop("beta", None)
    if bias is not None and len(bias.outputs) == 1:
        ledger.set_values(bias, moved, INTO)
    else:
        _give_bias(pair, moved, names)
        ledger.owners[id(layer.inputs[2])] = ledger.owners.get(id(weight), weight_held)
    pair.remove()


def _scaled(
    layer: gs.Node, weight: NDArray[np.float64], scale: NDArray[np.float64]
) -> NDArray[np.float64] | None:
    """Scale each output channel of a weight; None where shapes do not fit.

    Args:
        layer: The layer that reads it.
        weight: Conv: (out, in / groups, ...); ConvTranspose: (in, out / groups, ...); Gemm:
            (in, out), or (out, in) where it is transposed.
        scale: (out,).
    """
    if layer.op == "ConvTranspose":
        groups = int(layer.attrs.get("group", 1))
        if weight.shape[0] % groups or weight.shape[1] * groups != len(scale):
            return None
        grouped = weight.reshape(groups, -1, *weight.shape[1:])
        by_group = scale.reshape(groups, 1, -1, *[1] * (weight.ndim - 2))
        return (grouped * by_group).reshape(weight.shape)
    axis = 1 if layer.op == "Gemm" and not layer.attrs.get("transB", 0) else 0
    if weight.shape[axis] != len(scale):
        return None
    return weight * scale.reshape([-1 if place == axis else 1 for place in range(weight.ndim)])


def _row(bias: NDArray[Any]) -> NDArray[np.float64] | None:
    """Return a bias as one number a channel or one for all; None where samples differ."""
    if bias.ndim > 1 and bias.shape[0] != 1:
        return None
    return bias.astype(np.float64).reshape(-1)


def _give_bias(pair: _Pair, values: NDArray[Any], names: set[str]) -> None:
    """Let a layer read a bias of its own."""
    name = f"{pair.layer.inputs[1].name}_bias"
    while name in names:
        name += "_"
    names.add(name)
    constant = Constant(name, values)
    pair.scope.constants.append(constant)
    pair.layer.inputs = [*pair.layer.inputs[:2], constant]


def _drop_unread(model: Model, outputs: set[int], ledger: Ledger) -> None:
    """Remove the constants that only the layers before or a BatchNormalization read."""
    for scope in model.all_scopes():
        scope.constants = [
            each
            for each in scope.constants
            if each.outputs or id(each) in outputs or id(each.held) not in ledger.reasons
        ]
