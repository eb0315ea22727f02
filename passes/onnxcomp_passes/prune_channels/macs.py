"""Multiply-accumulate operations of a model, and how they fall as channels go."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from onnxcomp.graph import Constant
from onnxcomp.graph.operators import CONVOLUTIONS, RECURRENCES

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import onnx_graphsurgeon as gs
    from numpy.typing import NDArray

    from onnxcomp.graph import Model
    from onnxcomp_passes.prune_channels.groups import Group
    from onnxcomp_passes.prune_channels.shapes import Shapes

    Floats = NDArray[np.float64]
    Axis = tuple[gs.Tensor, int]
    """A tensor and one of its axes."""


@dataclass(frozen=True, eq=False)
class Work:
    """How many multiply-accumulate operations each operator takes.

    They are a product of sizes, of which some fall with the channels of groups.

    Args:
        repeats: What does not fall, for each operator; shape (operators,).
        sizes: Sizes that may fall, shape (operators, axes).
        widths: By how much each falls with a channel; shape (operators, axes, groups).
    """

    repeats: Floats
    sizes: Floats
    widths: Floats

    def total(self, removed: NDArray[Any]) -> Any:
        """Return the operations that are left; shape (...,).

        Args:
            removed: How many channels of each group are gone, shape (..., groups).
        """
        left = self.sizes - np.einsum("oag,...g->...oa", self.widths, removed)
        return (self.repeats * left.prod(axis=-1)).sum(axis=-1)


def work_of(model: Model, groups: Sequence[Group], shapes: Shapes) -> Work:
    """Count the operations of Conv, Gemm, MatMul and recurrent operators of the main graph.

    Args:
        model: The model.
        groups: Groups of its channels.
        shapes: Shapes of its tensors; an operator of unknown shapes does not count.
    """
    terms = [term for node in model.nodes for term in _terms(node, shapes)]
    most = max((len(axes) for _, axes in terms), default=0)
    sizes = np.ones((len(terms), most))
    widths = np.zeros((len(terms), most, len(groups)))
    width = _widths(groups)
    for row, (_, axes) in enumerate(terms):
        for column, (tensor, axis) in enumerate(axes):
            sizes[row, column] = shapes[id(tensor)][axis]
            for group, each in width.get((id(tensor), axis), ()):
                widths[row, column, group] += each
    return Work(np.array([repeats for repeats, _ in terms], np.float64), sizes, widths)


def _widths(groups: Sequence[Group]) -> dict[tuple[int, int], list[tuple[int, int]]]:
    """Return the groups along each axis of a tensor, and how many elements a channel takes."""
    found: dict[tuple[int, int], list[tuple[int, int]]] = {}
    for number, group in enumerate(groups):
        for part in (*group.weights, *group.tensors):
            along = found.setdefault((id(part.tensor), part.axis), [])
            along.append((number, part.places.shape[1]))
    return found


def _terms(node: gs.Node, shapes: Shapes) -> Iterable[tuple[float, list[Axis]]]:
    """Yield products: a factor that stays, and axes whose sizes are the other factors."""
    given = [*node.inputs, *node.outputs]
    if node.op in CONVOLUTIONS and _are_known(given[:2], node.outputs[:1], shapes):
        weight = node.inputs[1]
        # Each weight is used once at every position of the output, or of what is transposed.
        moved = node.outputs[0] if node.op == "Conv" else node.inputs[0]
        shape = shapes[id(moved)]
        yield shape[0] * prod(shape[2:]), _all_axes(weight, shapes)
    elif node.op in {"Gemm", "MatMul"} and _are_known(node.inputs[:2], node.outputs, shapes):
        yield _product(node, shapes)
    elif node.op in RECURRENCES and _are_known(node.inputs[:3], (), shapes):
        steps = float(prod(shapes[id(node.inputs[0])][:2]))
        yield from ((steps, _all_axes(weight, shapes)) for weight in node.inputs[1:3])


def _product(node: gs.Node, shapes: Shapes) -> tuple[float, list[Axis]]:
    left, right = node.inputs[:2]
    output = node.outputs[0]
    shape = shapes[id(output)]
    if isinstance(right, Constant) and len(shapes[id(right)]) == 2:  # noqa: PLR2004 - a matrix
        size = shapes[id(right)]
        outputs = size[0] if node.attrs.get("transB", 0) else size[1]
        return prod(shape) / max(outputs, 1), _all_axes(right, shapes)
    axes = [(output, axis) for axis in range(len(shape))]
    inner = 0 if node.attrs.get("transA", 0) else len(shapes[id(left)]) - 1
    return 1.0, [*axes, (left, inner)]


def _all_axes(tensor: gs.Tensor, shapes: Shapes) -> list[Axis]:
    return [(tensor, axis) for axis in range(len(shapes[id(tensor)]))]


def _are_known(inputs: Sequence[gs.Tensor], outputs: Sequence[gs.Tensor], shapes: Shapes) -> bool:
    return all(id(each) in shapes for each in (*inputs, *outputs) if each.name)
