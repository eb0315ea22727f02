"""Raising a model's opset, on demand only."""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnx
import onnx.version_converter

from onnxcomp.errors import ModelError
from onnxcomp.graph.external import DataFiles
from onnxcomp.graph.reading import read_model
from onnxcomp.graph.values import Constant
from onnxcomp.graph.writing import write_model

if TYPE_CHECKING:
    from onnxcomp.graph.model import Model

PLACEHOLDER_BYTES = 1024
"""Larger constants are kept away from the converter, which would copy them."""


def raise_opset(model: Model, opset: int) -> None:
    """Rewrite a model in place for ``opset`` if its own is earlier, by ONNX's version converter.

    Raises:
        ModelError: The model has functions, or an operator that the converter does not know.
    """
    if model.opset >= opset:
        return
    if model.local_functions:
        raise ModelError(
            f"cannot raise the opset from {model.opset} to {opset}: the model has functions; "
            "export it again at a later opset"
        )
    held = {
        constant.name: constant
        for constant in model.constants
        if constant.node is None and constant.nbytes > PLACEHOLDER_BYTES
    }
    try:
        converted = onnx.version_converter.convert_version(write_model(model, lower=False), opset)
    except (RuntimeError, ValueError) as error:
        reason = str(error).splitlines()[-1]
        raise ModelError(
            f"cannot raise the opset from {model.opset} to {opset}: {reason}"
        ) from error
    upgraded = read_model(converted, DataFiles(None))
    for constant in upgraded.constants:
        if constant.name in held and isinstance(constant, Constant):
            constant.values = held[constant.name].held
    upgraded.data_paths = model.data_paths
    upgraded.header.metadata_props.MergeFrom(model.header.metadata_props)
    model.__dict__.update(upgraded.__dict__)
