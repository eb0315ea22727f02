"""Random graphs of operators that move channels: split, joined, in heads and in groups."""

from math import prod

import numpy as np
import onnx

from onnxcomp.testing.random_builder import IMAGE, SIGNAL, Builder, Value, fits
from onnxcomp.testing.random_layers import batch_normalization, conv, residual, same_shape
from onnxcomp.testing.random_operators import activation, global_average_pool, pool

OPSETS = (13, 17, 18)
NEW_PADS = 18


def integers(b: Builder, *values: int) -> str:
    return b.hold(np.array(values, np.int64))


def cut(b: Builder, x: Value, sizes: list[int], axis: int = 1) -> list[Value]:
    """Split an axis into parts of some sizes."""
    shapes = [(*x.shape[:axis], size, *x.shape[axis + 1 :]) for size in sizes]
    if len(set(sizes)) == 1 and b.chance(0.5) and b.opset < NEW_PADS:
        inputs = [x.name]
    else:
        inputs = [x.name, integers(b, *sizes)]
    made = b.node("Split", inputs, shapes[0], axis=axis)
    values = [made, *(Value(f"v{next(b.names)}", shape) for shape in shapes[1:])]
    b.nodes[-1].output[:] = [each.name for each in values]
    return values


def join(b: Builder, values: list[Value], axis: int = 1) -> Value:
    total = sum(each.shape[axis] for each in values)
    shape = (*values[0].shape[:axis], total, *values[0].shape[axis + 1 :])
    return b.node("Concat", [each.name for each in values], shape, axis=axis)


def split_and_join(b: Builder, x: Value) -> Value | None:
    channels = x.shape[1]
    if channels < 4:
        return None
    place = int(b.numbers.integers(1, channels))
    parts = cut(b, x, [place, channels - place])
    parts[0] = same_shape(b, parts[0]) if b.chance(0.5) else activation(b, parts[0])
    return join(b, parts[:: b.pick((1, -1))])


def gate(b: Builder, x: Value) -> Value | None:
    if x.shape[1] % 2 or x.shape[1] < 4:
        return None
    one, other = cut(b, x, [x.shape[1] // 2] * 2)
    opened = b.node("Sigmoid", [other.name], other.shape)
    return b.node("Mul", [one.name, opened.name], one.shape)


def some(b: Builder, x: Value) -> Value | None:
    """Slice or gather channels."""
    channels = x.shape[1]
    if channels < 4:
        return None
    if b.chance(0.5):
        start = int(b.numbers.integers(0, channels // 2))
        end = int(b.numbers.integers(start + 2, channels + 1))
        size = end - start
        start, end = (
            each - channels * int(b.chance(0.3) and each < channels) for each in (start, end)
        )
        bounds = [integers(b, each) for each in (start, end, b.pick((1, 1 - len(x.shape))))]
        return b.node("Slice", [x.name, *bounds], (x.shape[0], size, *x.shape[2:]))
    places = b.numbers.integers(-channels, channels, int(b.numbers.integers(2, channels + 3)))
    shape = (x.shape[0], len(places), *x.shape[2:])
    return b.node("Gather", [x.name, integers(b, *places)], shape, axis=1) if fits(shape) else None


def pad(b: Builder, x: Value) -> Value | None:
    around = [[0, 0], b.sizes((0, 0, 1, 2), 2), *(b.sizes((0, 1), 2) for _ in x.shape[2:])]
    shape = tuple(size + sum(each) for size, each in zip(x.shape, around, strict=True))
    pads = integers(b, *(each[0] for each in around), *(each[1] for each in around))
    return b.node("Pad", [x.name, pads], shape) if fits(shape) else None


def shuffle(b: Builder, x: Value) -> Value | None:
    groups = [each for each in (2, 3, 4, 8) if x.shape[1] % each == 0 and each < x.shape[1]]
    if not groups or len(x.shape) < SIGNAL:
        return None
    count = b.pick(groups)
    apart = (x.shape[0], count, x.shape[1] // count, *x.shape[2:])
    a = b.node("Reshape", [x.name, integers(b, 0, count, -1, *x.shape[2:])], apart)
    order = [0, 2, 1, *range(3, len(apart))]
    turned = b.node("Transpose", [a.name], [apart[each] for each in order], perm=order)
    return b.node("Reshape", [turned.name, integers(b, 0, x.shape[1], *x.shape[2:])], x.shape)


def excite(b: Builder, x: Value) -> Value | None:
    if len(x.shape) != IMAGE or x.shape[1] < 2:
        return None
    channels, inner = x.shape[1], b.pick((2, 4, 5))
    pooled = b.node("GlobalAveragePool", [x.name], (*x.shape[:2], 1, 1))
    down = b.weight((inner, channels, 1, 1), channels, 0)
    squeezed = b.node("Conv", [pooled.name, down, b.floats(inner)], (x.shape[0], inner, 1, 1))
    active = b.node("Relu", [squeezed.name], squeezed.shape)
    up = b.weight((channels, inner, 1, 1), inner, 0)
    opened = b.node("Conv", [active.name, up], pooled.shape)
    scale = b.node("HardSigmoid", [opened.name], pooled.shape)
    return b.node("Mul", [x.name, scale.name], x.shape)


def spread(b: Builder, x: Value) -> Value | None:
    """Pool, and spread what is left over the plane, by a literal shape or by the shape of x."""
    if len(x.shape) != IMAGE or b.batch is None:
        return None
    pooled = b.node("GlobalMaxPool", [x.name], (*x.shape[:2], 1, 1))
    is_literal = b.chance(0.5)
    shape = integers(b, *x.shape) if is_literal else b.node("Shape", [x.name], (4,)).name
    wide = b.node("Expand", [pooled.name, shape], x.shape)
    return join(b, [wide, x]) if fits((1, 2 * x.shape[1], *x.shape[2:])) else wide


def rearrange(b: Builder, x: Value) -> Value | None:
    """Move channels to the plane, or the plane to channels."""
    if len(x.shape) != IMAGE:
        return None
    n, c, h, w = x.shape
    if c % 4 == 0 and c > 4 and b.chance(0.5):
        shape = (n, c // 4, 2 * h, 2 * w)
        return b.node("DepthToSpace", [x.name], shape, blocksize=2, mode=b.pick(("DCR", "CRD")))
    if h % 2 == 0 and w % 2 == 0 and c <= 16:
        return b.node("SpaceToDepth", [x.name], (n, 4 * c, h // 2, w // 2), blocksize=2)
    return None


def group_normalization(b: Builder, x: Value) -> Value | None:
    """Normalise groups of channels as exporters write it."""
    groups = [each for each in (2, 4, 6, 8) if x.shape[1] % each == 0]
    if not groups or len(x.shape) != IMAGE:
        return None
    count = b.pick(groups)
    flat = (x.shape[0], count, prod(x.shape[1:]) // count)
    a = b.node("Reshape", [x.name, integers(b, 0, count, -1)], flat)
    inputs = [a.name, b.floats(count, mean=1.0), b.floats(count)]
    normal = b.node("InstanceNormalization", inputs, flat)
    shape = b.node("Shape", [x.name], (4,))
    c = b.node("Reshape", [normal.name, shape.name], x.shape)
    return b.node("Mul", [c.name, b.floats(x.shape[1], 1, 1, mean=1.0)], x.shape)


def enlarge(b: Builder, x: Value) -> Value | None:
    if len(x.shape) != IMAGE:
        return None
    shape = (*x.shape[:2], 2 * x.shape[2], 2 * x.shape[3])
    if not fits(shape):
        return None
    scales = b.hold(np.array([1, 1, 2, 2], np.float32))
    return b.node("Resize", [x.name, "", scales], shape, mode="nearest")


def attention(b: Builder, x: Value) -> Value | None:
    """Make a plane a sequence, let its places attend to each other in heads, and put it back."""
    if len(x.shape) != IMAGE or x.shape[2] * x.shape[3] > 120:
        return None
    n, c, h, w = x.shape
    count, width, places = b.pick((2, 4, 6)), b.pick((2, 3, 4)), h * w
    inner = count * width
    flat = b.node("Reshape", [x.name, integers(b, 0, 0, -1)], (n, c, places))
    rows = b.node("Transpose", [flat.name], (n, places, c), perm=[0, 2, 1])
    q, k, v = (_heads(b, rows, count, width) for _ in range(3))
    turned = b.node("Transpose", [k.name], (n, count, width, places), perm=[0, 1, 3, 2])
    scores = b.node("MatMul", [q.name, turned.name], (n, count, places, places))
    shares = b.node("Softmax", [scores.name], scores.shape, axis=-1)
    mixed = b.node("MatMul", [shares.name, v.name], v.shape)
    back = b.node("Transpose", [mixed.name], (n, places, count, width), perm=[0, 2, 1, 3])
    whole = b.node("Reshape", [back.name, integers(b, 0, 0, inner)], (n, places, inner))
    out = b.node("MatMul", [whole.name, b.weight((inner, c), inner, 1)], (n, places, c))
    columns = b.node("Transpose", [out.name], (n, c, places), perm=[0, 2, 1])
    plane = b.node("Reshape", [columns.name, integers(b, 0, c, h, w)], x.shape)
    return b.node("Add", [plane.name, x.name], x.shape) if b.chance(0.5) else plane


def _heads(b: Builder, rows: Value, count: int, width: int) -> Value:
    n, places, c = rows.shape
    inner = count * width
    made = b.node("MatMul", [rows.name, b.weight((c, inner), c, 1)], (n, places, inner))
    biased = b.node("Add", [made.name, b.floats(inner)], made.shape)
    apart = (n, places, count, width)
    if b.chance(0.5):
        shape = integers(b, 0, 0, count, width)
    else:
        found = b.node("Shape", [rows.name], (3,))
        kept = b.node("Slice", [found.name, integers(b, 0), integers(b, 2)], (2,))
        last = integers(b, count, b.pick((width, -1)))
        shape = b.node("Concat", [kept.name, last], (4,), axis=0).name
    a = b.node("Reshape", [biased.name, shape], apart)
    return b.node("Transpose", [a.name], (n, count, places, width), perm=[0, 2, 1, 3])


def recurrence(b: Builder, x: Value) -> Value | None:
    """Run over the rows of a plane, as text recognition does."""
    if len(x.shape) != IMAGE or x.shape[1] * x.shape[2] > 200:
        return None
    n, c, h, w = x.shape
    flat = b.node("Reshape", [x.name, integers(b, 0, c * h, w)], (n, c * h, w))
    steps = b.node("Transpose", [flat.name], (w, n, c * h), perm=[2, 0, 1])
    kind, gates = b.pick((("LSTM", 4), ("GRU", 3), ("RNN", 1)))
    directions, hidden = b.pick((1, 2)), b.pick((4, 6))
    weights = [
        b.weight((directions, gates * hidden, c * h), c * h, 1),
        b.weight((directions, gates * hidden, hidden), hidden, 1),
        b.floats(directions, 2 * gates * hidden),
    ]
    attributes = {"direction": "bidirectional"} if directions > 1 else {}
    shape = (w, directions, n, hidden)
    made = b.node(kind, [steps.name, *weights], shape, hidden_size=hidden, **attributes)
    turned = b.node("Transpose", [made.name], (n, directions, hidden, w), perm=[2, 1, 3, 0])
    joined = integers(b, 0, directions * hidden, 1, -1)
    return b.node("Reshape", [turned.name, joined], (n, directions * hidden, 1, w))


def einsum(b: Builder, x: Value) -> Value | None:
    if len(x.shape) != IMAGE:
        return None
    outputs = b.pick((4, 8, 12))
    shape = (x.shape[0], outputs, *x.shape[2:])
    weights = b.weight((x.shape[1], outputs), x.shape[1], 1)
    return (
        b.node("Einsum", [x.name, weights], shape, equation="nchw,co->nohw")
        if fits(shape)
        else None
    )


def tile(b: Builder, x: Value) -> Value | None:
    shape = (x.shape[0], 2 * x.shape[1], *x.shape[2:])
    repeats = integers(b, 1, 2, *[1] * len(x.shape[2:]))
    return b.node("Tile", [x.name, repeats], shape) if fits(shape) and shape[1] < 64 else None


LAYERS = (
    *(conv, conv, conv, conv, activation, activation, residual, batch_normalization, pool),
    *(split_and_join, gate, some, pad, shuffle, excite, spread, rearrange, group_normalization),
    *(enlarge, attention, attention, recurrence, einsum, tile),
)


def random_channel_model(seed: int) -> onnx.ModelProto:
    """Return a random model of planes, whose last layer mixes channels."""
    numbers = np.random.default_rng([seed, 7])
    b = Builder(numbers, int(numbers.choice(OPSETS)), int(numbers.integers(1, 3)), 0.2)
    if b.chance(0.4):
        b.batch = None
    x = Value("x", (b.batch or 2, b.pick((3, 4)), b.pick((6, 8)), b.pick((6, 8))))
    b.values.append(x)
    b.values.append(conv(b, x) or same_shape(b, x))
    while len(b.values) < int(numbers.integers(5, 14)):
        given = b.values[-1] if b.chance(0.85) else b.pick(b.values)
        made = b.pick(LAYERS)(b, given)
        if made is not None:
            b.values.append(made)
    last = b.values[-1]
    channels = last.shape[1]
    weights = b.weight((5, channels, *[1] * len(last.shape[2:])), channels, 0)
    y = b.node("Conv", [last.name, weights], (last.shape[0], 5, *last.shape[2:]))
    if b.chance(0.2):
        y = global_average_pool(b, y) or y
    ports = [b.port(x)], [b.port(y)]
    graph = onnx.helper.make_graph(b.nodes, "channels", *ports, b.initializers)
    opsets = [onnx.helper.make_opsetid("", b.opset)]
    return onnx.helper.make_model(graph, opset_imports=opsets, ir_version=8)
