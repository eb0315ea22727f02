"""A small model with feeds, and how one is put together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from onnxcomp.runtime import Feed

SEED = 20
FEEDS = 3
METADATA = {"author": "somebody", "licence": "any"}


@dataclass(frozen=True, eq=False)
class SmallModel:
    """A model that takes milliseconds, with weights that are worth compressing.

    Args:
        name: What it is an example of.
        proto: The model; not to be changed.
        feeds: Inputs for it, each a whole feed.
        is_external: Whether `source` writes the weights to a file beside the model.
    """

    name: str
    proto: onnx.ModelProto
    feeds: tuple[Feed, ...]
    is_external: bool = False

    def source(self, folder: Path) -> bytes | Path:
        """Return what to compress: bytes, or the path of files that are put into ``folder``."""
        if not self.is_external:
            data: bytes = self.proto.SerializeToString(deterministic=True)
            return data
        path = folder / f"{self.name}.onnx"
        if not path.exists():
            private = onnx.ModelProto()
            private.CopyFrom(self.proto)
            beside = f"{self.name}.bin"
            onnx.save(private, path, save_as_external_data=True, location=beside, size_threshold=0)
        return path


class Random:
    """Weights and inputs, the same for the same name of a model.

    Args:
        name: The model's name.
    """

    def __init__(self, name: str) -> None:
        self._numbers = np.random.default_rng([SEED, *name.encode()])

    def weight(self, *shape: int) -> NDArray[np.float32]:
        """Return normal weights, scaled so that activations keep their size."""
        fan_in = np.prod(shape[1:]) if len(shape) > 2 else shape[0]  # noqa: PLR2004 - a matrix
        return self.floats(*shape) / np.float32(np.sqrt(fan_in))

    def floats(self, *shape: int) -> NDArray[np.float32]:
        """Return normal numbers."""
        return self._numbers.standard_normal(shape, np.float32)

    def integers(self, below: int, *shape: int) -> NDArray[np.int64]:
        """Return whole numbers from 0."""
        return self._numbers.integers(below, size=shape)

    def feeds(self, name: str, *shape: int) -> tuple[Feed, ...]:
        """Return feeds of one float input."""
        return tuple({name: self.floats(*shape)} for _ in range(FEEDS))


def parsed(text: str, weights: Mapping[str, NDArray[Any]]) -> onnx.ModelProto:
    """Return the model that a text in ONNX's own syntax describes.

    Args:
        text: The model.
        weights: Initializers of the main graph.
    """
    proto = onnx.parser.parse_model(text)
    proto.producer_name = "onnxcomp.testing"
    for key, value in METADATA.items():
        proto.metadata_props.add(key=key, value=value)
    add_weights(proto.graph, weights)
    return proto


def add_weights(graph: onnx.GraphProto, weights: Mapping[str, NDArray[Any]]) -> None:
    """Add initializers to a graph or a body."""
    graph.initializer.extend(
        onnx.numpy_helper.from_array(values, name) for name, values in weights.items()
    )


def constant_node(name: str, values: NDArray[Any]) -> onnx.NodeProto:
    """Return a Constant node that gives ``values``."""
    tensor = onnx.numpy_helper.from_array(values, name)
    return onnx.helper.make_node("Constant", [], [name], name=f"{name}_node", value=tensor)
