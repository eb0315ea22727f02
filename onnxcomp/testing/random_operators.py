"""Random operators without weights; as in random_layers, None is given where one does not suit."""

from __future__ import annotations

from math import prod

import numpy as np

from onnxcomp.testing.random_builder import IMAGE, MATRIX, SIGNAL, Builder, Value, fits, window

HARD_SWISH_OPSET = 14
WIDEST_VECTOR = 1280


def activation(b: Builder, x: Value) -> Value:
    """Apply one of the usual activations."""
    kinds = ["Relu", "Relu", "Clip", "Sigmoid", "LeakyRelu", "Tanh", "Swish"]
    kind = b.pick(kinds + ["HardSwish"] * (b.opset >= HARD_SWISH_OPSET))
    if kind == "Clip":
        bounds = [b.hold(np.array(bound, np.float32)) for bound in (b.pick((0, -1)), 6)]
        return b.node("Clip", [x.name, *bounds], x.shape)
    if kind == "Swish":
        gate = b.node("Sigmoid", [x.name], x.shape)
        return b.node("Mul", [x.name, gate.name], x.shape)
    return b.node(kind, [x.name], x.shape)


def pool(b: Builder, x: Value) -> Value | None:
    """Take the largest or the mean of each window."""
    sizes = x.shape[2:]
    if not sizes:
        return None
    kernel = b.sizes((2, 3), len(sizes))
    attributes, after = window(b, sizes, kernel, can_dilate=False)
    shape = (*x.shape[:2], *after)
    if not fits(shape):
        return None
    kind = b.pick(("MaxPool", "AveragePool"))
    if kind == "AveragePool":
        attributes["count_include_pad"] = b.pick((0, 1))
    return b.node(kind, [x.name], shape, **attributes)


def global_average_pool(b: Builder, x: Value) -> Value | None:
    """Take the mean of each channel, and mostly drop the axes that are left of it."""
    if len(x.shape) < SIGNAL:
        return None
    made = b.node("GlobalAveragePool", [x.name], (*x.shape[:2], *[1] * len(x.shape[2:])))
    return flatten(b, made) if b.chance(0.7) else made


def flatten(b: Builder, x: Value) -> Value | None:
    """Make a sample one vector."""
    width = prod(x.shape[1:])
    return b.node("Flatten", [x.name], (x.shape[0], width)) if width <= WIDEST_VECTOR else None


def reshape(b: Builder, x: Value) -> Value | None:
    """Join the last two axes, or split the last."""
    if len(x.shape) == IMAGE:
        shape = (*x.shape[:2], x.shape[2] * x.shape[3])
    elif x.shape[-1] % 4 == 0:
        shape = (*x.shape[:-1], x.shape[-1] // 4, 4)
    else:
        return None
    # 0 keeps the batch as it is, and -1 is as exporters write the rest.
    wanted = b.hold(np.array([0, *shape[1:-1], -1], np.int64))
    return b.node("Reshape", [x.name, wanted], shape)


def transpose(b: Builder, x: Value) -> Value | None:
    """Put the axes of a sample into another order."""
    if len(x.shape) == MATRIX:
        return None
    order = [0, *(1 + b.numbers.permutation(len(x.shape) - 1)).tolist()]
    return b.node("Transpose", [x.name], [x.shape[axis] for axis in order], perm=order)


def combine(b: Builder, x: Value) -> Value | None:
    """Add, multiply or join two values, which may be the same one."""
    other = b.pick([each for each in b.values if each.shape == x.shape])
    kind = b.pick(("Add", "Mul", "Concat"))
    if kind == "Mul":
        # Products of what is not bounded would grow.
        other = b.node("Sigmoid", [other.name], x.shape)
    if kind != "Concat":
        return b.node(kind, [x.name, other.name], x.shape)
    shape = (x.shape[0], 2 * x.shape[1], *x.shape[2:])
    return b.node(kind, [x.name, other.name], shape, axis=1) if fits(shape) else None


def softmax(b: Builder, x: Value) -> Value | None:
    """Make each vector of the last axis a distribution."""
    if x.shape[-1] == 1:
        return None
    return b.node("Softmax", [x.name], x.shape, axis=-1)


def attention(b: Builder, x: Value) -> Value | None:
    """Multiply activations with each other, as attention does."""
    if len(x.shape) == MATRIX:
        return None
    order = [*range(len(x.shape) - 2), len(x.shape) - 1, len(x.shape) - 2]
    turned = b.node("Transpose", [x.name], [x.shape[axis] for axis in order], perm=order)
    scores = b.node("MatMul", [x.name, turned.name], (*x.shape[:-1], x.shape[-2]))
    scaled = b.node(
        "Mul", [scores.name, b.hold(np.array(x.shape[-1] ** -0.5, np.float32))], scores.shape
    )
    shares = b.node("Softmax", [scaled.name], scaled.shape, axis=-1)
    return b.node("MatMul", [shares.name, x.name], x.shape)
