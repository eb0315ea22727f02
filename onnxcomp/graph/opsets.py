"""Raising a model's opset, on demand only."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING

import onnx
import onnx.version_converter

from onnxcomp.errors import ModelError
from onnxcomp.graph.external import DataFiles
from onnxcomp.graph.reading import read_model
from onnxcomp.graph.values import DecodedValues, StoreValues
from onnxcomp.graph.writing import write_model

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from onnxcomp.graph.model import Model
    from onnxcomp.graph.writing import Load
    from onnxcomp.stores import CodebookStore


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
    stores = _set_plain(model)
    weights = _SetAside()
    proto = write_model(model, offload=weights.add)
    try:
        converted = onnx.version_converter.convert_version(proto, opset)
    except (RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise ModelError(
            f"cannot raise the opset from {model.opset} to {opset}: {reason}"
        ) from error
    converted.metadata_props.clear()
    converted.metadata_props.extend(model.header.metadata_props)
    upgraded = read_model(converted, weights)
    _put_back_stores(upgraded, stores)
    upgraded.data_paths = model.data_paths
    upgraded.folder = model.folder
    model.__dict__.update(upgraded.__dict__)


class _SetAside(DataFiles):
    """Data that the converter, which would copy it, does not see."""

    def __init__(self) -> None:
        super().__init__(None)
        self._data: list[NDArray[np.uint8]] = []

    def add(self, header: onnx.TensorProto, _size: int, load: Load) -> None:
        header.data_location = onnx.TensorProto.EXTERNAL
        header.external_data.add(key="location", value=str(len(self._data)))
        self._data.append(load())

    def read(self, tensor: onnx.TensorProto) -> NDArray[np.uint8]:
        return self._data[int(tensor.external_data[0].value)]


def _set_plain(model: Model) -> dict[str, CodebookStore]:
    """Decode all stores, and return those whose name no other constant has."""
    constants = [constant for scope in model.all_scopes() for constant in scope.constants]
    names = Counter(constant.name for constant in constants)
    stores = {}
    for constant in constants:
        if isinstance(constant.held, StoreValues):
            store = constant.held.store
            constant.values = DecodedValues(store)
            if names[constant.name] == 1:
                stores[constant.name] = store
    return stores


def _put_back_stores(model: Model, stores: dict[str, CodebookStore]) -> None:
    for scope in model.all_scopes():
        for constant in scope.constants:
            if constant.name in stores:
                store = replace(stores[constant.name], opset=model.opset)
                constant.values = StoreValues(store)
