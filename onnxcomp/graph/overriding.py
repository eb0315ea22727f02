"""A copy of a model whose weights are inputs: one session then tries any values of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from onnxcomp.graph.copying import copy_tensors_too
from onnxcomp.graph.model import Variable

if TYPE_CHECKING:
    from collections.abc import Mapping

    from onnxcomp.graph.model import Model, Tensor
    from onnxcomp.graph.values import Constant


def override(model: Model, constants: Mapping[str, Constant]) -> Model:
    """Return a copy of a model that is fed some of its constants.

    Args:
        model: The model; not changed.
        constants: Constants of its main graph and branches, by the names of the new inputs.
    """
    copied, twins = copy_tensors_too(model)
    for name, constant in constants.items():
        feed(copied, twins[id(constant)], Variable(name, constant.dtype, list(constant.shape)))
    return copied


def feed(model: Model, old: Tensor, fed: Variable) -> Variable:
    """Let all readers of a tensor read a new input in its place; return the input."""
    for reader in list(old.outputs):
        reader.inputs = [fed if each is old else each for each in reader.inputs]
    for scope in model.scopes():
        if any(each is old for each in scope.outputs):
            scope.outputs = [fed if each is old else each for each in scope.outputs]
    model.inputs = [*model.inputs, fed]
    return fed
