"""Weights that can become several, as matrices: which operators read them, and how."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from onnxcomp.graph.operators import CONVOLUTIONS, OPERATORS, PRODUCTS, RECURRENCES
from onnxcomp.statistics import Form

if TYPE_CHECKING:
    import onnx_graphsurgeon as gs
    from numpy.typing import NDArray

    from onnxcomp.graph import Weight

STACKED = 3
"""Axes of a stack of matrices."""


@dataclass(frozen=True, eq=False)
class Site:
    """A weight as matrices, shape (groups, outputs, inputs), and the operators that read it.

    Args:
        weight: The weight.
        nodes: The operators: of one type, and all take it at the same input.
        place: That input.
        form: How the weight becomes matrices.
    """

    weight: Weight
    nodes: tuple[gs.Node, ...]
    place: int
    form: Form

    @property
    def op(self) -> str:
        """The type of the operators."""
        return str(self.nodes[0].op)

    @property
    def is_convolution(self) -> bool:
        """Whether the operators are convolutions, transposed or not."""
        return self.op in CONVOLUTIONS

    @cached_property
    def kernel(self) -> tuple[int, ...]:
        """Sizes of a convolution's kernel; empty of other operators."""
        return self.weight.shape[2:] if self.is_convolution else ()

    @property
    def taps(self) -> int:
        """Elements of the kernel, 1 where there is none."""
        return prod(self.kernel)

    @property
    def full_rank(self) -> int:
        """The rank from which on nothing is lost."""
        return min(self.form.matrices[1:])


def site_of(weight: Weight) -> Site:
    """Return a weight as matrices.

    Raises:
        ValueError: It cannot be factorized; the message says why, in words that follow its name.
    """
    _check(weight)
    nodes, place = tuple(each.node for each in weight.readers), weight.readers[0].place
    forms = {_form(each, place, weight.shape) for each in nodes}
    if len(forms) > 1:
        raise ValueError("is read in several ways")
    if nodes[0].op in CONVOLUTIONS and weight.is_depthwise:
        raise ValueError("belongs to a depthwise convolution")
    return Site(weight, nodes, place, forms.pop())


def _check(weight: Weight) -> None:
    kinds = {(each.node.op, each.place) for each in weight.readers}
    if len(kinds) > 1:
        raise ValueError("is read in several ways")
    op, place = kinds.pop()
    if OPERATORS[op].kind == "other":
        raise ValueError(f"belongs to {op}, which cannot become two")
    if op in RECURRENCES and place > 1:
        raise ValueError(f"is the recurrence weight of {op}, which is one operator")
    for each in weight.readers:
        if not each.is_direct:
            raise ValueError("is read through other operators; simplify may fold them")
        if each.node.inputs[place] is not weight.tensor:
            raise ValueError("is passed to a function")
        if op == "Gather" and int(each.node.attrs.get("axis", 0)) != 0:
            raise ValueError("is a table whose columns are looked up")
        if op in PRODUCTS and each.node.inputs[1 - place] is weight.tensor:
            raise ValueError("is multiplied with itself")


def _form(node: gs.Node, place: int, shape: tuple[int, ...]) -> Form:
    if node.op == "Conv":
        groups = int(node.attrs.get("group", 1))
        matrices = (groups, shape[0] // groups, prod(shape[1:]))
        return Form(shape, matrices, (0, 1, 2), matrices)
    if node.op == "ConvTranspose":
        groups = int(node.attrs.get("group", 1))
        inputs, outputs, taps = shape[0] // groups, shape[1], prod(shape[2:])
        cut = (groups, inputs, outputs, taps)
        return Form(shape, cut, (0, 2, 3, 1), (groups, outputs * taps, inputs))
    if node.op in RECURRENCES:
        # Both directions read one input, so that they share what it is multiplied with.
        split = (shape[0] * shape[1], shape[2])
        return Form(shape, split, (0, 1), (1, *split))
    if len(shape) >= STACKED and node.op == "MatMul":
        stack = prod(shape[:-2])
        stacked = (stack, *shape[-2:])
        turns = (0, 2, 1) if place == 1 else (0, 1, 2)
        return Form(shape, stacked, turns, (stack, stacked[turns[1]], stacked[turns[2]]))
    if len(shape) != STACKED - 1:
        raise ValueError(f"has {len(shape)} axes, no matrix")
    is_turned = bool(node.op == "Gemm" and node.attrs.get("transB" if place == 1 else "transA", 0))
    outputs_first = node.op == "Gather" or is_turned == (place == 1)
    order = (0, 1) if outputs_first else (1, 0)
    return Form(shape, shape, order, (1, shape[order[0]], shape[order[1]]))


def stored(matrices: NDArray[Any], site: Site) -> NDArray[Any]:
    """Return a factor, shape (groups, outputs, inputs), as the operator's weights lie.

    Only for products of matrices and tables.
    """
    shape = site.weight.shape
    if len(shape) >= STACKED and site.op == "MatMul":
        turned = matrices.transpose(site.form.order)
        return turned.reshape(*shape[:-2], *turned.shape[1:])
    (matrix,) = matrices
    return np.transpose(matrix, site.form.order)
