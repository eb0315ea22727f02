"""Raising a model's opset, on demand only."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import onnx
import onnx.version_converter

from onnxcomp.errors import ModelError
from onnxcomp.graph.copying import copy_model
from onnxcomp.graph.placeholders import SetAside
from onnxcomp.graph.reading import read_model
from onnxcomp.graph.values import StoreValues
from onnxcomp.graph.writing import write_model

if TYPE_CHECKING:
    from onnxcomp.graph.model import Model


SMALLEST = 1024
"""Fewer bytes are shown to the converter, which needs some: shapes, axes, flags."""


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
    copied, weights = copy_model(model), SetAside()
    weights.take(copied, SMALLEST)
    try:
        converted = onnx.version_converter.convert_version(write_model(copied), opset)
    except (RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise ModelError(
            f"cannot raise the opset from {model.opset} to {opset}: {reason}"
        ) from error
    converted.metadata_props.clear()
    converted.metadata_props.extend(model.header.metadata_props)
    upgraded = read_model(converted, weights)
    weights.put_back(upgraded)
    for scope in upgraded.all_scopes():
        for constant in scope.constants:
            if isinstance(constant.held, StoreValues):
                constant.values = StoreValues(replace(constant.held.store, opset=upgraded.opset))
    upgraded.data_paths = model.data_paths
    upgraded.folder = model.folder
    model.__dict__.update(upgraded.__dict__)
