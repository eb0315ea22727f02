"""Padding that is left to a Pad, where ONNX Runtime's convolutions are slow at it.

With a picture one wide, a convolution that pads by itself takes up to twice the time of one behind
a Pad (ONNX Runtime 1.32: 0.56 to 0.94 for 3 to 512 taps; from two wide on nothing is gained). ONNX
Runtime would make the Pad part of the convolution again, but not where the value to pad with is an
input that is left out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from onnxcomp.graph import Constant, Node, Variable

if TYPE_CHECKING:
    import onnx_graphsurgeon as gs

    from onnxcomp.graph import Graph, Model

FIRST_OPSET = 11
"""Before, what is padded was an attribute of Pad."""

PICTURE_RANK = 4


def pad_apart(model: Model) -> None:
    """Write a Pad before every convolution of a picture one wide that pads by itself.

    Args:
        model: The model, with the shapes of its tensors where they are known; changed in place.
    """
    for top in (model, *model.local_functions):
        if top.opset >= FIRST_OPSET:
            for scope in top.scopes():
                for node in list(scope.nodes):
                    if node.op == "Conv" and _is_one_wide(node):
                        _pad_before(node, scope)


def _is_one_wide(node: gs.Node) -> bool:
    """Whether a convolution pads the columns of a picture that are one wide, and nothing else."""
    shape, pads = node.inputs[0].shape, node.attrs.get("pads", ())
    return (
        shape is not None
        and len(shape) == PICTURE_RANK
        and shape[-1] == 1
        and node.attrs.get("auto_pad", "NOTSET") == "NOTSET"
        and any(pads[::2])
        and not any(pads[1::2])
    )


def _pad_before(node: gs.Node, scope: Graph) -> None:
    read, name = node.inputs[0], f"{node.outputs[0].name}.padded"
    above, _, below, _ = node.attrs["pads"]
    assert read.shape is not None  # noqa: S101 - the caller has looked
    shape = list(read.shape)
    if isinstance(shape[2], int):
        shape[2] += above + below
    pads = Constant(f"{name}.pads", np.array([0, 0, above, 0, 0, 0, below, 0], np.int64))
    padded = Variable(name, read.dtype, shape)
    nothing = Variable("")
    place = next(place for place, each in enumerate(scope.nodes) if each is node)
    scope.nodes.insert(place, Node("Pad", name, {}, [read, pads, nothing], [padded]))
    scope.constants.append(pads)
    node.inputs = [padded, *node.inputs[1:]]
    node.attrs["pads"] = [0, 0, 0, 0]
