"""Random layers with weights; each takes a builder and a value, and gives a value or None.

None is given where a layer does not suit the value's shape.
"""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx

from onnxcomp.testing.random_builder import MATRIX, SIGNAL, Builder, Value, fits, window
from onnxcomp.testing.random_operators import activation

if TYPE_CHECKING:
    from collections.abc import Sequence

WIDTHS = (3, 4, 8, 16, 24, 32)
LAYER_NORMALIZATION_OPSET = 17


def conv(b: Builder, x: Value) -> Value | None:
    """Convolve, in groups or not; a group for each channel is a depthwise convolution."""
    if len(x.shape) < SIGNAL:
        return None
    channels, sizes = x.shape[1], x.shape[2:]
    groups = b.pick([each for each in (1, 1, 1, 2, 4, channels) if channels % each == 0])
    outputs = groups * b.pick((1, 2, 4)) if groups > 1 else b.pick(WIDTHS)
    kernel = b.sizes((1, 2, 3, 3, 5), len(sizes))
    attributes, after = window(b, sizes, kernel, can_dilate=True)
    shape = (x.shape[0], outputs, *after)
    if not fits(shape):
        return None
    weights = (outputs, channels // groups, *kernel)
    inputs = [x.name, b.weight(weights, prod(weights[1:]), 0)]
    inputs += [b.floats(outputs)] if b.chance(0.7) else []
    return b.node("Conv", inputs, shape, group=groups, **attributes)


def conv_transpose(b: Builder, x: Value) -> Value | None:
    """Convolve backwards, which makes planes larger."""
    if len(x.shape) < SIGNAL:
        return None
    channels, sizes = x.shape[1], x.shape[2:]
    groups = b.pick([each for each in (1, 1, 2, channels) if channels % each == 0])
    outputs = groups * b.pick((1, 2, 4))
    kernel = b.sizes((2, 3, 4), len(sizes))
    strides = b.sizes((1, 2), len(sizes))
    more = [b.pick(range(stride)) for stride in strides]
    pads = [b.pick((0, 1)) for _ in (*kernel, *kernel)]
    axes = range(len(sizes))
    after = [
        strides[i] * (sizes[i] - 1) + more[i] + kernel[i] - pads[i] - pads[i + len(sizes)]
        for i in axes
    ]
    shape = (x.shape[0], outputs, *after)
    if not fits(shape):
        return None
    fan_in = channels // groups * max(1, prod(kernel) // prod(strides))
    inputs = [x.name, b.weight((channels, outputs // groups, *kernel), fan_in, 1)]
    inputs += [b.floats(outputs)] if b.chance(0.7) else []
    return b.node(
        "ConvTranspose",
        inputs,
        shape,
        group=groups,
        kernel_shape=kernel,
        strides=strides,
        pads=pads,
        output_padding=more,
    )


def gemm(b: Builder, x: Value) -> Value | None:
    """Multiply, scale and add in one node, with either factor constant and turned or not."""
    if len(x.shape) != MATRIX:
        return None
    (batch, width), outputs = x.shape, b.pick(WIDTHS)
    turned, attributes = int(b.chance(0.5)), scales(b)
    weights = b.weight((outputs, width) if turned else (width, outputs), width, turned - 1)
    if b.chance(0.25):
        # The constant comes first: outputs in rows, samples in columns.
        is_plain = b.chance(0.5)
        second = b.node("Transpose", [x.name], (width, batch), perm=[1, 0]) if is_plain else x
        inputs = [weights, second.name, *addend(b, ((outputs, 1), (), (1,)))]
        attributes |= {"transA": 1 - turned, "transB": int(not is_plain)}
        made = b.node("Gemm", inputs, (outputs, batch), **attributes)
        return b.node("Transpose", [made.name], (batch, outputs), perm=[1, 0])
    if b.chance(0.25):
        x = b.node("Transpose", [x.name], (width, batch), perm=[1, 0])
        attributes["transA"] = 1
    addends = [(outputs,), (1, outputs), (), (1,)]
    addends += [(b.batch, outputs), (b.batch, 1)] if b.batch else []
    inputs = [x.name, weights, *addend(b, addends)]
    return b.node("Gemm", inputs, (batch, outputs), transB=turned, **attributes)


def scales(b: Builder) -> dict[str, Any]:
    """Choose what Gemm scales by; mostly, as exporters do, by nothing."""
    return {key: b.pick((0.5, 1.0, 2.0)) for key in ("alpha", "beta") if b.chance(0.3)}


def addend(b: Builder, shapes: Sequence[tuple[int, ...]]) -> list[str]:
    """Choose what Gemm adds, of one of these shapes; or nothing."""
    return [b.floats(*b.pick(shapes))] if b.chance(0.8) else []


def matmul(b: Builder, x: Value) -> Value | None:
    """Multiply by a constant from the right, the whole batch by one or each matrix by its own."""
    width, outputs = x.shape[-1], b.pick(WIDTHS)
    shape = (*x.shape[:-1], outputs)
    if not fits(shape):
        return None
    weights = b.weight((*stack(b, x), width, outputs), width, -1)
    made = b.node("MatMul", [x.name, weights], shape)
    if b.chance(0.6):
        pair = [made.name, b.floats(outputs)]
        return b.node("Add", pair[:: b.pick((1, -1))], shape)
    return made


def matmul_left(b: Builder, x: Value) -> Value | None:
    """Multiply by a constant from the left, which mixes along the last axis but one."""
    if len(x.shape) == MATRIX:
        turned = b.node("Transpose", [x.name], x.shape[::-1], perm=[1, 0])
        outputs = b.pick(WIDTHS)
        weights = b.weight((outputs, x.shape[1]), x.shape[1], 0)
        made = b.node("MatMul", [weights, turned.name], (outputs, x.shape[0]))
        return b.node("Transpose", [made.name], made.shape[::-1], perm=[1, 0])
    height, outputs = x.shape[-2], b.pick(WIDTHS)
    shape = (*x.shape[:-2], outputs, x.shape[-1])
    if not fits(shape):
        return None
    weights = b.weight((*stack(b, x), outputs, height), height, -2)
    return b.node("MatMul", [weights, x.name], shape)


def stack(b: Builder, x: Value) -> tuple[int, ...]:
    """Choose the leading axes of a constant that is multiplied with a value."""
    leading = x.shape[:-2]
    options: list[tuple[int, ...]] = [(), (), ()]
    if leading:
        options += [(1,) * len(leading), leading[1:]]
        options += [leading] if b.batch else []
    return b.pick(options)


def batch_normalization(b: Builder, x: Value) -> Value:
    """Normalise each channel by constants."""
    channels = x.shape[1]
    scale, variance = (b.floats(channels, mean=1.0, spread=0.1) for _ in range(2))
    inputs = [x.name, scale, b.floats(channels), b.floats(channels), variance]
    return b.node("BatchNormalization", inputs, x.shape, epsilon=1e-3)


def layer_normalization(b: Builder, x: Value) -> Value | None:
    """Normalise each vector of the last axis."""
    width = x.shape[-1]
    if b.opset < LAYER_NORMALIZATION_OPSET or width < WIDTHS[0]:
        return None
    inputs = [x.name, b.floats(width, mean=1.0)]
    inputs += [b.floats(width)] if b.chance(0.7) else []
    return b.node("LayerNormalization", inputs, x.shape, axis=-1, epsilon=1e-3)


def same_shape(b: Builder, x: Value) -> Value:
    """Mix channels and give out what has the shape of what came in."""
    channels, sizes = x.shape[1], x.shape[2:]
    if not sizes:
        weights = b.weight((channels, channels), channels, 0)
        return b.node("Gemm", [x.name, weights, b.floats(channels)], x.shape, transB=1)
    size = b.pick((1, 3))
    shape = (channels, channels, *[size] * len(sizes))
    weights = b.weight(shape, prod(shape[1:]), 0)
    pads = [size // 2] * 2 * len(sizes)
    return b.node("Conv", [x.name, weights, b.floats(channels)], x.shape, pads=pads)


def residual(b: Builder, x: Value) -> Value:
    """Add a layer's result to what went into it."""
    made = same_shape(b, x)
    if b.chance(0.5):
        made = b.node("Relu", [made.name], x.shape)
    pair = [made.name, x.name]
    return b.node("Add", pair[:: b.pick((1, -1))], x.shape)


def scale(b: Builder, x: Value) -> Value:
    """Multiply each channel, or everything, by a constant."""
    channels = (x.shape[1], *[1] * len(x.shape[2:]))
    factor = b.floats(*b.pick((channels, (1,), ())), mean=1.0)
    return b.node("Mul", [x.name, factor], x.shape)


def condition(b: Builder, x: Value) -> Value:
    """Choose by the values between two bodies with weights of their own."""
    # Of the input: a decision on what was quantized would turn on rounding.
    largest = b.node("ReduceMax", [b.values[0].name], (), keepdims=0)
    limit = b.hold(np.array(2.5, np.float32))
    decision = b.node("Greater", [largest.name, limit], ())
    bodies = []
    for _ in range(2):
        body = b.body()
        made = same_shape(body, x)
        made = activation(body, made) if b.chance(0.5) else made
        bodies.append(
            onnx.helper.make_graph(
                body.nodes, f"body_{made.name}", [], [body.port(made)], body.initializers
            )
        )
    return b.node("If", [decision.name], x.shape, then_branch=bodies[0], else_branch=bodies[1])
