from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx_graphsurgeon.ir.node import Node

class Tensor:
    name: str
    # Lists that tell the nodes in them; to assign is to fill them anew.
    @property
    def inputs(self) -> list[Node]: ...
    @inputs.setter
    def inputs(self, nodes: Iterable[Node]) -> None: ...
    @property
    def outputs(self) -> list[Node]: ...
    @outputs.setter
    def outputs(self, nodes: Iterable[Node]) -> None: ...
    @property
    def dtype(self) -> np.dtype[Any] | None: ...
    @property
    def shape(self) -> Sequence[int | str | None] | None: ...

class Variable(Tensor):
    dtype: np.dtype[Any] | None
    shape: Sequence[int | str | None] | None
    type: str
    def __init__(
        self,
        name: str,
        dtype: np.dtype[Any] | None = None,
        shape: Sequence[int | str | None] | None = None,
        type: str = "tensor_type",
    ) -> None: ...

class LazyValues:
    tensor: onnx.TensorProto | onnx.SparseTensorProto
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    def __init__(self, tensor: onnx.TensorProto | onnx.SparseTensorProto) -> None: ...
    # Subclasses compute it when it is asked for.
    @property
    def nbytes(self) -> int: ...
    def load(self) -> NDArray[Any]: ...

class Constant(Tensor):
    _values: NDArray[Any] | LazyValues
    def __init__(self, name: str, values: NDArray[Any] | LazyValues) -> None: ...
    @property
    def values(self) -> NDArray[Any]: ...
    @values.setter
    def values(self, values: NDArray[Any] | LazyValues) -> None: ...
    @property
    def dtype(self) -> np.dtype[Any]: ...
    @property
    def shape(self) -> tuple[int, ...]: ...
    def copy(self) -> Constant: ...
