"""Weights set aside while another library rewrites the model's message."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx_graphsurgeon.ir.tensor import LazyValues

from onnxcomp.graph.external import DataFiles
from onnxcomp.graph.values import StoreValues, TensorValues, packed_bytes

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from onnxcomp.graph.model import Model
    from onnxcomp.graph.values import Constant


class SetAside(DataFiles):
    """Values that another library, which would copy them, does not see.

    In the message each is a tensor without data, whose external location is a number.
    """

    def __init__(self) -> None:
        super().__init__(None)
        self._held: list[NDArray[Any] | LazyValues] = []

    def take(self, model: Model, smallest: int) -> None:
        """Replace constants by stand-ins; words stay, which have no place outside a message.

        Args:
            model: A copy of a model; changed in place.
            smallest: Constants of fewer bytes stay too, except for stores.
        """
        for scope in model.all_scopes():
            for constant in scope.constants:
                is_store = isinstance(constant.held, StoreValues)
                if is_store or (constant.nbytes >= smallest and constant.dtype != object):
                    self._held.append(constant.held)
                    constant.values = _StandIn(constant, len(self._held) - 1)

    def load(self, location: str) -> NDArray[Any]:
        """Load the values whose stand-in has a location."""
        held = self._held[int(location)]
        loaded: NDArray[Any] = held.load() if isinstance(held, LazyValues) else held
        return loaded

    def read(self, tensor: onnx.TensorProto) -> NDArray[np.uint8]:
        """Return as many bytes as a stand-in claims, which take no memory."""
        size = packed_bytes(tensor.data_type, tuple(tensor.dims))
        return np.broadcast_to(np.zeros(1, np.uint8), (size,))

    def put_back(self, model: Model) -> None:
        """Give the constants of a model that was read with this as its files what they held."""
        for scope in model.all_scopes():
            for constant in scope.constants:
                held = constant.held
                if isinstance(held, TensorValues) and held.external is not None:
                    constant.values = self._held[int(held.tensor.external_data[0].value)]


class _StandIn(LazyValues):
    """What stands for values in the message: a tensor of their type and shape without data."""

    nbytes: int

    def __init__(self, constant: Constant, number: int) -> None:
        self.shape = tuple(constant.shape)
        self.dtype = constant.dtype
        self.tensor = onnx.TensorProto(
            name=constant.name,
            data_type=onnx.helper.np_dtype_to_tensor_dtype(np.dtype(constant.dtype)),
            dims=self.shape,
            data_location=onnx.TensorProto.EXTERNAL,
        )
        self.tensor.external_data.add(key="location", value=str(number))
        self.nbytes = 0
