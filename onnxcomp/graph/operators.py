"""What is known of operators that take weights: one table, from which all else follows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping

    import onnx_graphsurgeon as gs

Kind = Literal["convolution", "product", "recurrence", "lookup", "other"]


@dataclass(frozen=True)
class Operator:
    """What an operator does with its weights.

    Args:
        kind: How it computes with them. Of what is ``other`` no more is known than that weights
            can be stored in fewer bytes, since ONNX Runtime decodes them when it loads a session.
        weights: The inputs at which it takes weights; None for any.
        bias: The input at which it takes what is added to each output; None where it takes none.
        other_biases: Further inputs of that sort.
        axis: The axis of a weight along which its outputs lie, unless its attributes say more.
    """

    kind: Kind
    weights: tuple[int, ...] | None
    bias: int | None = None
    other_biases: tuple[int, ...] = ()
    axis: int = 0

    def takes_weight(self, index: int) -> bool:
        """Whether it takes a weight at an input."""
        return self.weights is None or index in self.weights

    def takes_bias(self, index: int) -> bool:
        """Whether it takes at an input what is added to each output."""
        return index == self.bias or index in self.other_biases


OPERATORS: Mapping[str, Operator] = {
    "Conv": Operator("convolution", (1,), 2),
    "ConvTranspose": Operator("convolution", (1,), 2, axis=1),
    "Gemm": Operator("product", (0, 1), 2),
    "MatMul": Operator("product", (0, 1)),
    "LSTM": Operator("recurrence", (1, 2), 3, axis=1),
    "GRU": Operator("recurrence", (1, 2), 3, axis=1),
    "RNN": Operator("recurrence", (1, 2), 3, axis=1),
    "Gather": Operator("lookup", (0,)),
    "GatherElements": Operator("other", (0,)),
    "GatherND": Operator("other", (0,)),
    "DeformConv": Operator("other", (1,), 3),
    "Einsum": Operator("other", None),
    # What ONNX Runtime's own tools write.
    "Attention": Operator("other", (1,), 2, axis=1),
    "EmbedLayerNormalization": Operator("other", (2, 3, 4), 6, (5,)),
    "FusedConv": Operator("other", (1,), 2),
    "FusedGemm": Operator("other", (0, 1), 2),
    "FusedMatMul": Operator("other", (0, 1)),
    "MoE": Operator("other", (2, 4, 6), 3, (5, 7), axis=1),
}
"""By type."""


def _of_kind(kind: Kind) -> frozenset[str]:
    return frozenset(name for name, each in OPERATORS.items() if each.kind == kind)


CONVOLUTIONS = _of_kind("convolution")
PRODUCTS = _of_kind("product")
RECURRENCES = _of_kind("recurrence")


def output_axis(node: gs.Node, index: int, rank: int) -> int:
    """Return the axis of a weight along which outputs (of a table: rows) lie.

    Args:
        node: The operator.
        index: The input at which it takes the weight.
        rank: Axes of the weight.
    """
    known = OPERATORS.get(node.op)
    axis = 0 if known is None else known.axis
    is_right = index == 1
    if node.op in {"MatMul", "FusedMatMul"}:
        is_turned = bool(node.attrs.get("transB" if is_right else "transA", 0))
        axis = rank - 1 if is_right != is_turned else rank - 2
    elif node.op in {"Gemm", "FusedGemm"}:
        is_turned = bool(node.attrs.get("transB" if is_right else "transA", 0))
        axis = int(is_turned != is_right)
    elif node.op == "Einsum":
        axis = _of_equation(str(node.attrs.get("equation", "")), index)
    elif node.op in {"Gather", "GatherElements"}:
        axis = int(node.attrs.get("axis", 0))
    return axis % rank


def _of_equation(equation: str, index: int) -> int:
    """Return the last axis of an operand of Einsum that its output has; the first if none."""
    given, _, output = equation.replace(" ", "").partition("->")
    terms = given.split(",")
    if index >= len(terms) or "." in terms[index]:
        return 0
    return max((axis for axis, letter in enumerate(terms[index]) if letter in output), default=0)
