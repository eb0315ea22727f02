"""Operators that compute each element by itself, with broadcasting."""

from __future__ import annotations

from typing import TYPE_CHECKING

from onnxcomp.graph import Constant

if TYPE_CHECKING:
    from collections.abc import Callable

    from onnxcomp_passes.prune_channels.operators import Operator

UNARY = {
    *("Abs", "Acos", "Acosh", "Asin", "Asinh", "Atan", "Atanh", "BitwiseNot", "Cast"),
    *("CastLike", "Ceil", "Celu", "Clip", "Cos", "Cosh", "Elu", "Erf", "Exp", "Floor", "Gelu"),
    *("HardSigmoid", "HardSwish", "Identity", "IsInf", "IsNaN", "LeakyRelu", "Log", "Mish", "Neg"),
    *("Not", "Reciprocal", "Relu", "Round", "Selu", "Shrink", "Sigmoid", "Sign", "Sin", "Sinh"),
    *("Softplus", "Softsign", "Sqrt", "Swish", "Tan", "Tanh", "ThresholdedRelu"),
}
"""Operators whose first input alone has the output's elements; others are single numbers."""

BROADCASTING = {
    *("Add", "And", "BitShift", "BitwiseAnd", "BitwiseOr", "BitwiseXor", "Div", "Equal"),
    *("Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Max", "Mean", "Min", "Mod", "Mul"),
    *("Or", "PRelu", "Pow", "Sub", "Sum", "Where", "Xor"),
}

FIRST_BROADCASTING_OPSET = 7
"""Before, an attribute said how axes are aligned."""


def unary(op: Operator) -> None:
    """Each output element is a function of the same input element."""
    for place in range(len(op.node.outputs)):
        if op.output(place):
            op.join_axes(op.input(0), op.output(place))
    for place in range(1, len(op.node.inputs)):
        op.leave(op.input(place))


def dropout(op: Operator) -> None:
    """Each element passes; in training, what is dropped depends on how many there are."""
    unary(op)
    training = op.node.inputs[2] if op.has(2) else None
    is_off = training is None or (isinstance(training, Constant) and not training.values.any())
    if not is_off:
        op.freeze_all(f"{op.name} in training")


def broadcasting(op: Operator) -> None:
    """Each output element is a function of those in its place; axes of size 1 serve all."""
    if op.opset < FIRST_BROADCASTING_OPSET and len({len(op.input(i)) for i in (0, -1)}) > 1:
        op.freeze_all(f"{op.name} of an early opset")
        return
    output = op.output()
    for place in range(len(op.node.inputs)):
        axes = op.input(place)
        for axis, ids in enumerate(axes):
            given = output[len(output) - len(axes) + axis]
            if len(ids) == len(given):
                op.join(ids, given)
                op.use(place, axis, "follows")


RULES: dict[str, Callable[[Operator], None]] = {
    **dict.fromkeys(UNARY, unary),
    **dict.fromkeys(BROADCASTING, broadcasting),
    "Dropout": dropout,
}
