"""A copy of a model whose weights are inputs: one session then tries any values of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from onnxcomp.graph.copying import copy_tensors_too
from onnxcomp.graph.model import Variable

if TYPE_CHECKING:
    from collections.abc import Mapping

    from onnxcomp.graph.model import Model
    from onnxcomp.graph.values import Constant


def override(model: Model, constants: Mapping[str, Constant]) -> Model:
    """Return a copy of a model that is fed some of its constants.

    Args:
        model: The model; not changed.
        constants: Constants of its main graph and branches, by the names of the new inputs.
    """
    copied, twins = copy_tensors_too(model)
    for name, constant in constants.items():
        old = twins[id(constant)]
        fed = Variable(name, constant.dtype, list(constant.shape))
        for reader in list(old.outputs):
            reader.inputs = [fed if each is old else each for each in reader.inputs]
        copied.inputs = [*copied.inputs, fed]
    return copied
