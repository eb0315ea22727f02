"""Which constants are weights, of which operators, and along which axis their outputs lie."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import TYPE_CHECKING, Any

import ml_dtypes
import numpy as np

from onnxcomp.graph.operators import CONVOLUTIONS, OPERATORS, Operator, output_axis
from onnxcomp.graph.order import ordered
from onnxcomp.graph.values import Constant, SparseTensorValues, StoreValues

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from collections.abc import Set as AbstractSet

    import onnx_graphsurgeon as gs
    from numpy.typing import NDArray

    from onnxcomp.graph.model import Model

FLOATS = {np.dtype(kind) for kind in (np.float16, np.float32, np.float64, ml_dtypes.bfloat16)}

LAYOUT = {
    "Cast",
    "Concat",
    "Flatten",
    "Identity",
    "Reshape",
    "Slice",
    "Squeeze",
    "Transpose",
    "Unsqueeze",
}
"""Operators through which a weight is followed to its reader.

Recurrent networks of PyTorch slice and concatenate the gates of their weights on the way.
"""

NORMALISATIONS = {
    "BatchNormalization",
    "GroupNormalization",
    "InstanceNormalization",
    "LayerNormalization",
    "RMSNormalization",
}

QUANTIZED = {"DequantizeLinear", "QuantizeLinear", "DynamicQuantizeLinear"}


@dataclass(frozen=True)
class Reader:
    """An operator that takes a weight.

    Args:
        node: The operator.
        place: The input at which it takes the weight.
        is_direct: Whether nothing stands between; otherwise the weight's axes may be others.
    """

    node: gs.Node
    place: int
    is_direct: bool


@dataclass(frozen=True, eq=False)
class Weight:
    """A constant and the operators that read it, wherever they are.

    Args:
        tensor: The constant; assign to its ``values`` to change it.
        readers: Its readers; those behind layout operators and in functions included.
        function: The local function that it lives in; empty for the main graph.
        opset: The opset of the scope that it lives in.
        is_output: Whether some graph gives it out as it is.
    """

    tensor: Constant
    readers: tuple[Reader, ...]
    function: str
    opset: int
    is_output: bool

    @property
    def name(self) -> str:
        """The constant's name."""
        return str(self.tensor.name)

    @property
    def shape(self) -> tuple[int, ...]:
        """The constant's shape."""
        return tuple(self.tensor.shape)

    @property
    def dtype(self) -> np.dtype[Any]:
        """The constant's element type."""
        return np.dtype(self.tensor.dtype)

    @property
    def size(self) -> int:
        """How many elements it has."""
        return prod(self.shape)

    @cached_property
    def op_types(self) -> tuple[str, ...]:
        """Operators that read it, sorted."""
        return tuple(sorted({reader.node.op for reader in self.readers}))

    def load(self) -> NDArray[Any]:
        """Return the elements, read-only."""
        return self.tensor.values

    @property
    def output_axis(self) -> int:
        """The axis along which the readers' output channels (for Gather: rows) lie.

        Readers that disagree, or layout operators on the way, leave a guess: the first axis is
        where most exporters put them.
        """
        rank = len(self.shape)
        axes = {
            output_axis(reader.node, reader.place, rank) if reader.is_direct else 0
            for reader in self.readers
        }
        return axes.pop() if len(axes) == 1 else 0

    @property
    def is_depthwise(self) -> bool:
        """Whether a convolution applies each filter to one channel of its input."""
        return any(
            reader.node.op in CONVOLUTIONS
            and int(reader.node.attrs.get("group", 1)) > 1
            and len(self.shape) > 1
            and 1 in self.shape[:2]
            for reader in self.readers
        )

    @property
    def unsuitable(self) -> str | None:
        """Why no pass may compress it as a weight; None if it may."""
        reasons = (
            (self.tensor.may_be_overridden, "is also a graph input, which a caller may override"),
            (self.is_output, "is a graph output"),
            (isinstance(self.tensor.held, SparseTensorValues), "is a sparse initializer"),
            (not self.readers, "is read by no operator"),
            (self.op_types != () and set(self.op_types) <= QUANTIZED, "is quantized already"),
            (self.dtype not in FLOATS, f"holds {self.dtype}, not float"),
            (bool(set(self.op_types) & NORMALISATIONS), "belongs to a normalisation"),
            (self._is_taken(Operator.takes_bias), "is a bias"),
            (
                not self._is_taken(Operator.takes_weight),
                f"is no weight of {', '.join(self.op_types)}",
            ),
            (len(self.shape) < 2, "is a vector"),  # noqa: PLR2004
        )
        return next((reason for applies, reason in reasons if applies), None)

    def _is_taken(self, takes: Callable[[Operator, int], bool]) -> bool:
        known = ((OPERATORS.get(reader.node.op), reader.place) for reader in self.readers)
        return any(each is not None and takes(each, index) for each, index in known)


def weights(model: Model) -> Iterator[Weight]:
    """Yield every weight-like constant of a model once, in the order of the file.

    Weight-like is what is not a lone number and is float, or quantized already, or in a store.
    """
    outputs = {id(each) for scope in model.all_scopes() for each in scope.outputs}
    movers = _movers(model)
    for top in (model, *model.local_functions):
        for scope in top.scopes():
            for constant in scope.constants:
                readers = tuple(_readers(constant, model, movers))
                weight = Weight(
                    constant,
                    readers,
                    "" if top is model else top.name,
                    top.opset,
                    id(constant) in outputs,
                )
                if _is_weight_like(weight):
                    yield weight


def _is_weight_like(weight: Weight) -> bool:
    if isinstance(weight.tensor.held, StoreValues):
        return True
    if weight.size <= 1:
        return False
    is_quantized = weight.op_types != () and set(weight.op_types) <= QUANTIZED
    return weight.dtype in FLOATS or is_quantized


def _readers(constant: Constant, model: Model, movers: AbstractSet[int]) -> Iterator[Reader]:
    """Follow a constant through layout operators and into functions, without recursion."""
    functions = {(each.source.domain, each.name): each for each in model.local_functions}
    waiting: list[tuple[gs.Tensor, bool]] = [(constant, True)]
    seen: set[int] = set()
    while waiting:
        tensor, is_direct = waiting.pop()
        if id(tensor) in seen:
            continue
        seen.add(id(tensor))
        for node in dict.fromkeys(tensor.outputs):
            places = [place for place, each in enumerate(node.inputs) if each is tensor]
            function = functions.get((node.domain or "", node.op))
            if function is not None:
                waiting.extend((function.inputs[place], is_direct) for place in places)
            elif id(node) in movers:
                waiting.append((node.outputs[0], is_direct and node.op == "Identity"))
            else:
                yield from (Reader(node, place, is_direct) for place in places)


def _movers(model: Model) -> set[int]:
    """Return the nodes, by identity, that arrange constants anew, or what such nodes gave."""
    found: set[int] = set()
    for scope in model.all_scopes():
        for node in ordered(scope.nodes):
            if node.op in LAYOUT and all(_is_moved(tensor, found) for tensor in node.inputs):
                found.add(id(node))
    return found


def _is_moved(tensor: gs.Tensor, movers: AbstractSet[int]) -> bool:
    """Whether a tensor is constant, left out, or a constant that nodes have arranged anew."""
    if isinstance(tensor, Constant) or not tensor.name:
        return True
    return bool(tensor.inputs) and id(tensor.inputs[0]) in movers
