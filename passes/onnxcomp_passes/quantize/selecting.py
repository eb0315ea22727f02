"""Which layers compute with integers, and which stay float for the sake of accuracy."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING

import numpy as np

from onnxcomp.graph import is_fixed
from onnxcomp.statistics import layers
from onnxcomp_passes.quantize.placement import Plan, settled

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    import onnx_graphsurgeon as gs

    from onnxcomp.graph import Model, Weight
    from onnxcomp.statistics import Layer, Use
    from onnxcomp_passes.quantize.placement import Rounded
    from onnxcomp_passes.quantize.profiles import Profile
    from onnxcomp_passes.quantize.searching import Activation

ACTIVATIONS_SHARE = 0.5
"""Of the error that is allowed; the rest is left to weights and to what does not add up."""

PICTURE = 4
"""Channels of which a convolution with fewer reads a picture."""

PLAIN = {"alpha": 1.0, "beta": 1.0, "transA": 0}
"""Attributes of a Gemm that integer kernels do not know, with the values that they take."""


def full_plan(model: Model, chosen: Collection[int], profile: Profile) -> Plan:
    """Return a plan in which every layer that may gain from integers computes with them.

    Args:
        model: The model.
        chosen: The weights that may be changed, by the identities of their constants.
        profile: What the provider does.
    """
    able = [
        layer
        for layer in layers(model)
        if id(layer.weight.tensor) in chosen
        and layer.uses
        and layer.weight.dtype == np.float32
        and all(_fuses(use, _outputs(layer), profile) for use in layer.uses)
        and _has_kernel(layer.weight, profile)
    ]
    keys = {layer.key for layer in able if _gains(layer, profile)}
    islands = {
        layer.key
        for layer in able
        if layer.key not in keys and all(use.node.op == "Conv" for use in layer.uses)
    }
    return Plan(frozenset(keys), frozenset(islands), profile)


def _outputs(layer: Layer) -> int:
    groups, outputs, _ = layer.form.matrices
    return groups * outputs


def _has_kernel(weight: Weight, profile: Profile) -> bool:
    """Whether there is a kernel for the shape of a convolution, if a weight is one's."""
    if "Conv" not in weight.op_types:
        return True
    outputs, inputs, *taps = weight.shape
    return min(outputs, inputs) >= profile.least_channels and prod(taps) <= profile.most_taps


def _gains(layer: Layer, profile: Profile) -> bool:
    groups, outputs, inputs = layer.form.matrices
    if layer.weight.is_depthwise and profile.depthwise:
        return True
    is_first = "Conv" in layer.weight.op_types and layer.weight.shape[1] < PICTURE
    is_large = (
        inputs >= (profile.least_of_pictures if is_first else profile.least_inputs)
        and outputs >= profile.least_outputs
        and layer.weight.size >= profile.least_elements
    )
    return is_large and (groups == 1 or profile.groups) and not layer.weight.is_depthwise


def _fuses(use: Use, outputs: int, profile: Profile) -> bool:
    node = use.node
    if node.op not in profile.layers or use.place != 1 or not _bias_fits(node, outputs):
        return False
    if node.op in profile.gives_integers:
        given = (settled(node), node.outputs[0])
        if any(each is one for each in use.scope.outputs for one in given):
            return False
    return node.op != "Gemm" or all(
        node.attrs.get(key, value) == value for key, value in PLAIN.items()
    )


def _bias_fits(node: gs.Node, outputs: int) -> bool:
    """Whether a bias, if there is one, is a constant of one number, or of one an output."""
    given = node.inputs[2:3] if node.op in {"Conv", "Gemm"} else []
    if not given or not given[0].name:
        return True
    if not is_fixed(given[0]):
        return False
    shape = tuple(given[0].shape)
    return prod(shape) == 1 or (shape[-1:] == (outputs,) and prod(shape) == outputs)


def exact_enough(model: Model, plan: Plan, found: Sequence[Activation], least_snr: float) -> Plan:
    """Let layers compute with floats until what the others cost is little enough.

    Errors of single roundings are taken to add up. Those go first whose error is largest for the
    multiplications that they let a provider do with integers.

    Args:
        model: The model.
        plan: The layers that may compute with integers.
        found: What is rounded, with the error of each.
        least_snr: Of the outputs, in dB.
    """
    allowed = ACTIVATIONS_SHARE * 10 ** (-least_snr / 10)
    errors = {id(each.rounded.tensor): each.error for each in found}
    work = multiplications(model, found)
    while True:
        tensors = [each for each in plan.place(model).tensors if each.source is None]
        if not tensors or sum(errors[id(each.tensor)] for each in tensors) <= allowed:
            return plan

        def cost(each: Rounded) -> float:
            return errors[id(each.tensor)] / (1 + sum(work.get(key, 0) for key in set(each.keys)))

        plan = plan.without(max(tensors, key=cost).keys)


def without_worst(plan: Plan, found: Sequence[Activation], count: int) -> Plan:
    """Return a plan in which the layers that cost most compute with floats.

    Args:
        plan: The layers that may compute with integers.
        found: What is rounded, with the error of each.
        count: How many layers.
    """
    costs: dict[str, float] = {}
    for each in found:
        for key in each.rounded.keys:
            costs[key] = max(costs.get(key, 0.0), each.error)
    worst = sorted(costs, key=lambda key: -costs[key])
    return plan.without(worst[:count])


def multiplications(model: Model, found: Sequence[Activation]) -> dict[str, float]:
    """Return how many multiplications each layer does for a sample.

    Args:
        model: The model.
        found: What is rounded, with its size.
    """
    sizes = {id(each.rounded.tensor): each.size for each in found}
    work: dict[str, float] = {}
    for layer in layers(model):
        for use in layer.uses:
            _, outputs, inputs = layer.form.matrices
            read, given = sizes.get(id(use.tensors[0])), sizes.get(id(settled(use.node)))
            if use.node.op == "Conv" and given is not None:
                work[layer.key] = work.get(layer.key, 0.0) + given * inputs
            elif read is not None:
                work[layer.key] = work.get(layer.key, 0.0) + read * outputs
    return work
