"""What random layers are built with: a graph in the making, and the choices that make it."""

from __future__ import annotations

from itertools import count
from math import prod
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import numpy as np
import onnx

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

T = TypeVar("T")

MATRIX, SIGNAL, IMAGE = 2, 3, 4
"""Ranks of a batch of vectors, of sequences and of planes of channels."""

MOST_ELEMENTS = 12_000
"""Of one sample of an activation, so that a model runs within milliseconds."""

SHARED = 0.2
ZERO_CHANNEL = 0.05
"""How often an output channel of several is all zeros: its scale would be 0."""
FEWEST_CHANNELS = 4


class Value(NamedTuple):
    """A float tensor of the graph; axis 0 is the batch, and its size is only typical if free."""

    name: str
    shape: tuple[int, ...]


class Builder:
    """One graph, or the body of a node, to which layers are added.

    Args:
        numbers: Where all choices and weights come from.
        opset: Of the model.
        batch: The fixed size of the batch; None where it is free.
        constants: How likely a weight is a Constant node rather than an initializer.
        outer: The graph around this body.
    """

    def __init__(
        self,
        numbers: np.random.Generator,
        opset: int,
        batch: int | None,
        constants: float,
        outer: Builder | None = None,
    ) -> None:
        self.numbers = numbers
        self.opset = opset
        self.batch = batch
        self.constants = constants
        self.names: Iterator[int] = count() if outer is None else outer.names
        self.weights: dict[tuple[int, ...], list[str]] = {}
        if outer is not None:
            self.weights = {shape: list(names) for shape, names in outer.weights.items()}
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []
        self.values: list[Value] = []

    def body(self) -> Builder:
        """Return a builder of a body inside this graph, which may read what this one holds."""
        return Builder(self.numbers, self.opset, self.batch, self.constants, self)

    def chance(self, probability: float) -> bool:
        """Tell whether something that is so likely happens."""
        return bool(self.numbers.random() < probability)

    def pick(self, options: Sequence[T]) -> T:
        """Return one of the options."""
        return options[int(self.numbers.integers(len(options)))]

    def sizes(self, options: Sequence[int], count: int) -> list[int]:
        """Return so many of the options, each drawn by itself."""
        return [self.pick(options) for _ in range(count)]

    def node(
        self, op_type: str, inputs: Sequence[str], shape: Sequence[int], **attributes: Any
    ) -> Value:
        """Add a node with one output of a shape."""
        value = Value(f"v{next(self.names)}", tuple(shape))
        name = f"{op_type}_{value.name}"
        self.nodes.append(
            onnx.helper.make_node(op_type, inputs, [value.name], name=name, **attributes)
        )
        return value

    def weight(self, shape: Sequence[int], fan_in: int, channel_axis: int) -> str:
        """Hold normal weights that keep an activation's size; now and then, ones held already.

        Args:
            shape: Of the weights.
            fan_in: How many of them one output element sums over.
            channel_axis: The axis of output channels, which have gains of their own.
        """
        known = self.weights.setdefault(tuple(shape), [])
        if known and self.chance(SHARED):
            return self.pick(known)
        gains = np.exp(0.4 * self.numbers.standard_normal(shape[channel_axis]))
        if len(gains) >= FEWEST_CHANNELS and self.chance(ZERO_CHANNEL):
            gains[0] = 0
        aligned = [1] * len(shape)
        aligned[channel_axis] = -1
        values = self.numbers.standard_normal(shape) * gains.reshape(aligned) / np.sqrt(fan_in)
        known.append(self.hold(values.astype(np.float32)))
        return known[-1]

    def floats(self, *shape: int, mean: float = 0.0, spread: float = 0.2) -> str:
        """Hold normal numbers, such as a bias."""
        return self.hold((mean + spread * self.numbers.standard_normal(shape)).astype(np.float32))

    def hold(self, values: NDArray[Any]) -> str:
        """Hold an array as an initializer or in a Constant node."""
        name = f"c{next(self.names)}"
        tensor = onnx.numpy_helper.from_array(np.asarray(values), name)
        if self.chance(self.constants):
            self.nodes.append(onnx.helper.make_node("Constant", [], [name], value=tensor))
        else:
            self.initializers.append(tensor)
        return name

    def port(self, value: Value) -> onnx.ValueInfoProto:
        """Declare a value as an input or output."""
        dims = [self.batch or "N", *value.shape[1:]]
        return onnx.helper.make_tensor_value_info(value.name, onnx.TensorProto.FLOAT, dims)


def fits(shape: Sequence[int]) -> bool:
    """Tell whether an activation of a shape is neither empty nor too large."""
    return min(shape) >= 1 and prod(shape[1:]) <= MOST_ELEMENTS


def window(
    b: Builder, sizes: Sequence[int], kernel: Sequence[int], can_dilate: bool
) -> tuple[dict[str, Any], list[int]]:
    """Choose how a kernel moves: attributes, and the sizes that come out (below 1: none can)."""
    axes = range(len(sizes))
    strides = b.sizes((1, 1, 2), len(sizes))
    auto_pad = b.pick(("NOTSET", "NOTSET", "NOTSET", "SAME_UPPER", "SAME_LOWER", "VALID"))
    chosen: dict[str, Any] = {"kernel_shape": list(kernel), "strides": strides}
    if auto_pad.startswith("SAME"):
        return chosen | {"auto_pad": auto_pad}, [-(-sizes[i] // strides[i]) for i in axes]
    dilations = b.sizes((1, 1, 2), len(sizes)) if can_dilate else [1 for _ in axes]
    if can_dilate:
        chosen["dilations"] = dilations
    pads = [0] * 2 * len(sizes)
    if auto_pad == "NOTSET":
        pads = [b.pick(range(each // 2 + 1)) for each in (*kernel, *kernel)]
        chosen["pads"] = pads
    else:
        chosen["auto_pad"] = auto_pad
    padded = [sizes[i] + pads[i] + pads[i + len(sizes)] for i in axes]
    extents = [dilations[i] * (kernel[i] - 1) + 1 for i in axes]
    return chosen, [(padded[i] - extents[i]) // strides[i] + 1 for i in axes]
