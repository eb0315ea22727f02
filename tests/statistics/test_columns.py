"""Statistics of every kind of layer against loops in float64 and against ONNX Runtime."""

from itertools import product

import numpy as np
import pytest
from observed import assert_columns, built, distance, floats, layer_of, observed, session_of, whole

from onnxcomp import load_model
from onnxcomp.statistics import HeldOut, Moments
from onnxcomp.testing.small_model import parsed

SAMPLES = 7


def patches(array, case):
    """Cut the patches under a kernel out of one array, by loops."""
    _, _, kernel, strides, dilations, before, after, groups = case
    padded = np.pad(array, ((0, 0), (0, 0), *zip(before, after, strict=True)))
    _, channels, *sizes = padded.shape
    spans = [dilation * (taps - 1) + 1 for dilation, taps in zip(dilations, kernel, strict=True)]
    counts = [
        (size - span) // stride + 1
        for size, span, stride in zip(sizes, spans, strides, strict=True)
    ]
    found = [[] for _ in range(groups)]
    for image, place in product(padded, np.ndindex(*counts)):
        for group, columns in enumerate(found):
            column = []
            for channel in range(channels // groups):
                for tap in np.ndindex(*kernel):
                    at = tuple(
                        corner * stride + step * dilation
                        for corner, stride, step, dilation in zip(
                            place, strides, tap, dilations, strict=True
                        )
                    )
                    column.append(image[(group * (channels // groups) + channel, *at)])
            columns.append(column)
    return np.array(found, np.float64)


def assert_gives(model, name, statistics, feeds, channel_axis):
    """The second moment of a layer's outputs, as ONNX Runtime computes them, is W H W'."""
    layer = layer_of(model, name)
    matrices = layer.form.to_matrices(layer.weight.load()).astype(np.float64)
    groups, rows, _ = matrices.shape
    session = session_of(model)
    outputs = [np.moveaxis(session.run(feed)["y"], channel_axis, -1) for feed in feeds]
    given = np.concatenate([each.reshape(-1, each.shape[-1]) for each in outputs])
    given = given.astype(np.float64).reshape(-1, groups, rows).transpose(1, 2, 0)
    expected = given @ given.transpose(0, 2, 1) / given.shape[2]
    second = whole(statistics)[2]
    assert distance(matrices @ second @ matrices.transpose(0, 2, 1), expected) < 1e-5


CONVOLUTIONS = {
    "one axis": ("", (7,), (3,), (1,), (1,), (0,), (0,), 1),
    "strides": ("strides = [2]", (8,), (3,), (2,), (1,), (0,), (0,), 1),
    "dilations, pads": (
        "dilations = [2], pads = [1, 2]",
        *((7,), (3,), (1,), (2,), (1,), (2,), 1),
    ),
    "two axes": ("pads = [1, 0, 0, 2]", (5, 4), (3, 2), (1, 1), (1, 1), (1, 0), (0, 2), 1),
    "all at once": (
        "strides = [2, 1], dilations = [1, 2], pads = [0, 1, 2, 1], group = 2",
        *((6, 5), (2, 3), (2, 1), (1, 2), (0, 1), (2, 1), 2),
    ),
    "depthwise": (
        "group = 4, pads = [1, 1, 1, 1]",
        (4, 4),
        (3, 3),
        (1, 1),
        (1, 1),
        *2 * [(1, 1)],
        4,
    ),
    # From 5 places and a stride of 2 come 3: (3 - 1) * 2 + 2 - 5 = 1 zero, after or before.
    "same upper": (
        'auto_pad = "SAME_UPPER", strides = [2]',
        (5,),
        (2,),
        (2,),
        (1,),
        (0,),
        (1,),
        1,
    ),
    "same lower": (
        'auto_pad = "SAME_LOWER", strides = [2]',
        (5,),
        (2,),
        (2,),
        (1,),
        (1,),
        (0,),
        1,
    ),
    "same, two axes": (
        'auto_pad = "SAME_UPPER", strides = [1, 2]',
        *((4, 6), (2, 3), (1, 2), (1, 1), (0, 0), (1, 1), 1),
    ),
    "valid": ('auto_pad = "VALID"', (5, 5), (2, 3), (1, 1), (1, 1), (0, 0), (0, 0), 1),
    "pointwise": ("", (3, 4), (1, 1), (1, 1), (1, 1), (0, 0), (0, 0), 1),
}


@pytest.mark.parametrize("case", CONVOLUTIONS.values(), ids=list(CONVOLUTIONS))
def test_convolution(case):
    attributes, sizes, kernel, *_, groups = case
    dims = ",".join("abcd"[: len(sizes)])
    model = built(
        f"y = Conv <{attributes}> (x, w)" if attributes else "y = Conv (x, w)",
        f"(float[N,4,{dims}] x) => (float[N,8,{dims}] y)",
        {"w": floats(8, 4 // groups, *kernel)},
    )
    feeds = [{"x": floats(1 + place % 2, 4, *sizes)} for place in range(SAMPLES)]
    statistics = observed(model, feeds).inputs["w"]
    cut = [patches(feed["x"], case) for feed in feeds]
    # One feed of two images is one sample.
    assert_columns(statistics, np.concatenate(cut, axis=1))
    assert_gives(model, "w", statistics, feeds, channel_axis=1)


@pytest.mark.parametrize("groups", [1, 3])
@pytest.mark.parametrize("rank", [1, 2])
def test_transposed_convolution(groups, rank):
    kernel, step = (2, 3)[:rank], (2, 3)[:rank]
    model = built(
        f"y = ConvTranspose <group = {groups}, strides = [{','.join(map(str, step))}]> (x, w)",
        f"(float[N,6,{'a,b'[: 2 * rank - 1]}] x) => (float[N,C,{'c,d'[: 2 * rank - 1]}] y)",
        {"w": floats(6, 4, *kernel)},
    )
    feeds = [{"x": floats(2, 6, *(3, 4)[:rank])} for _ in range(SAMPLES)]
    statistics = observed(model, feeds).inputs["w"]
    channels = np.concatenate([np.moveaxis(feed["x"], 1, -1).reshape(-1, 6) for feed in feeds])
    assert_columns(statistics, np.stack(np.split(channels, groups, axis=1)))
    # Taps do not overlap here, so that each output is one row of W times one column.
    layer = layer_of(model, "w")
    matrices = layer.form.to_matrices(layer.weight.load())
    for feed in feeds[:1]:
        image = session_of(model).run(feed)["y"][0]
        first = feed["x"][0].reshape(6, -1)[:, 0].reshape(groups, -1)
        taps = tuple(slice(size) for size in kernel)
        wanted = image[(slice(None), *taps)].reshape(groups, -1)
        given = np.einsum("goi,gi->go", matrices, first)
        assert given == pytest.approx(wanted, abs=1e-5)


PRODUCTS = {
    "gemm": ("y = Gemm (x, w)", (3, 5), (5, 4), -1, -1),
    "gemm, transB": ("y = Gemm <transB = 1> (x, w)", (3, 5), (4, 5), -1, -1),
    "gemm, transA": ("y = Gemm <transA = 1> (x, w)", (5, 3), (5, 4), -2, -1),
    "gemm, both": ("y = Gemm <transA = 1, transB = 1> (x, w)", (5, 3), (4, 5), -2, -1),
    "gemm, left": ("y = Gemm (w, x)", (5, 3), (4, 5), -2, -2),
    "gemm, left, transA": ("y = Gemm <transA = 1> (w, x)", (5, 3), (5, 4), -2, -2),
    "gemm, left, transB": ("y = Gemm <transB = 1> (w, x)", (3, 5), (4, 5), -1, -2),
    "gemm, left, both": ("y = Gemm <transA = 1, transB = 1> (w, x)", (3, 5), (5, 4), -1, -2),
    "matmul": ("y = MatMul (x, w)", (3, 5), (5, 4), -1, -1),
    "matmul, three axes": ("y = MatMul (x, w)", (2, 3, 5), (5, 4), -1, -1),
    "matmul, vector": ("y = MatMul (x, w)", (5,), (5, 4), -1, -1),
    "matmul, left": ("y = MatMul (w, x)", (5, 3), (4, 5), -2, -2),
    "matmul, left, three axes": ("y = MatMul (w, x)", (2, 5, 3), (4, 5), -2, -2),
    "matmul, left, vector": ("y = MatMul (w, x)", (5,), (4, 5), -1, -1),
}


@pytest.mark.parametrize("case", PRODUCTS.values(), ids=list(PRODUCTS))
def test_product(case):
    body, shape, weight, features, outputs = case
    dims, given = ("float[" + ",".join(letters[: len(shape)]) + "]" for letters in ("abc", "efg"))
    model = built(body, f"({dims} x) => ({given} y)", {"w": floats(*weight)})
    feeds = [{"x": floats(*shape)} for _ in range(SAMPLES)]
    found = observed(model, feeds)
    rows = [np.moveaxis(feed["x"], features, -1).reshape(-1, 5) for feed in feeds]
    assert_columns(found.inputs["w"], np.concatenate(rows)[None])
    assert_gives(model, "w", found.inputs["w"], feeds, channel_axis=outputs)
    assert set(found.ranges) == {"x", "y"}


def sigmoid(array):
    return 1 / (1 + np.exp(-array))


def lstm_step(x, state, weights, hidden):
    w, r, bias = weights
    i, o, f, c = np.split(x @ w.T + state[0] @ r.T + bias, 4, axis=1)
    del hidden
    cell = sigmoid(f) * state[1] + sigmoid(i) * np.tanh(c)
    return sigmoid(o) * np.tanh(cell), cell


def gru_step(x, state, weights, hidden):
    w, r, bias = weights
    own, recurrent = x @ w.T + bias, state[0] @ r.T
    both = own + recurrent
    update, reset = sigmoid(both[:, :hidden]), sigmoid(both[:, hidden : 2 * hidden])
    new = np.tanh(own[:, 2 * hidden :] + reset * recurrent[:, 2 * hidden :])
    after = (1 - update) * new + update * state[0]
    return after, after


@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
@pytest.mark.parametrize("operator", ["LSTM", "GRU"])
@pytest.mark.parametrize("starts", [False, True])
def test_recurrent(operator, direction, starts):
    hidden, gates, step = 4, *((4, lstm_step) if operator == "LSTM" else (3, gru_step))
    ways = {"forward": (1,), "reverse": (-1,), "bidirectional": (1, -1)}[direction]
    count = len(ways)
    weights = {
        "w": floats(count, gates * hidden, 3),
        "r": floats(count, gates * hidden, hidden),
        "b": np.concatenate([floats(count, gates * hidden), np.zeros((count, gates * hidden))], 1),
    }
    weights["b"] = weights["b"].astype(np.float32)
    extra = ", linear_before_reset = 1" if operator == "GRU" else ""
    first = ", , first" if starts else ""
    model = built(
        f'y = {operator} <hidden_size = {hidden}, direction = "{direction}"{extra}>'
        f" (x, w, r, b{first})",
        f"(float[L,N,3] x, float[{count},N,{hidden}] first) => (float[L,{count},N,{hidden}] y)",
        weights,
    )
    feeds = [
        {"x": floats(3 + place % 3, 2, 3), "first": floats(count, 2, hidden)}
        for place in range(SAMPLES)
    ]
    statistics = observed(model, feeds).inputs
    inputs = np.concatenate([feed["x"].reshape(-1, 3) for feed in feeds])
    assert_columns(statistics["w"], inputs[None])
    exact = {name: each.astype(np.float64) for name, each in weights.items()}
    states = [[] for _ in ways]
    for feed in feeds:
        for place, way in enumerate(ways):
            own = [exact["w"][place], exact["r"][place], exact["b"][place, : gates * hidden]]
            before = feed["first"][place] if starts else np.zeros((2, hidden))
            state = (before.astype(np.float64), np.zeros((2, hidden)))
            for x in feed["x"][::way]:
                states[place].append(state[0])
                state = step(x.astype(np.float64), state, own, hidden)
    assert_columns(statistics["r"], np.stack([np.concatenate(each) for each in states]))


def test_a_recurrent_layer_that_gives_its_last_state_only():
    text = """<ir_version: 8, opset_import: ["" : 17]>
        built (float[L,N,3] x) => (float[1,N,4] y) {
            unused, y = LSTM <hidden_size = 4> (x, w, r) }"""
    proto = parsed(text, {"w": floats(1, 16, 3), "r": floats(1, 16, 4)})
    proto.graph.node[0].output[0] = ""
    model = load_model(proto)
    feeds = [{"x": floats(4, 2, 3)} for _ in range(SAMPLES)]
    found = observed(model, feeds)
    assert_columns(found.inputs["w"], np.concatenate([f["x"].reshape(-1, 3) for f in feeds])[None])
    assert layer_of(model, "r").reason == "does not give its hidden states"
    assert set(found.inputs) == {"w"}
    assert set(found.ranges) == {"x"}


BRANCHES = """
    a = Tanh (x)
    y = If (flag) <
        then_branch = one () => (float[N,4] b) { b = MatMul (a, yes) },
        else_branch = two () => (float[N,4] c) { d = Relu (x) c = Gemm (d, no) }
    >
"""
SIGNATURE = "(float[N,3] x, bool flag) => (float[N,4] y)"


def test_branches():
    model = built(BRANCHES, SIGNATURE, {"yes": floats(3, 4), "no": floats(3, 4)})
    feeds = [{"x": floats(2, 3), "flag": np.array(place % 3 == 0)} for place in range(9)]
    statistics = observed(model, feeds).inputs
    taken = [np.tanh(feed["x"].astype(np.float64)) for feed in feeds if feed["flag"]]
    assert_columns(statistics["yes"], np.concatenate(taken)[None])
    others = [np.maximum(feed["x"], 0) for feed in feeds if not feed["flag"]]
    assert_columns(statistics["no"], np.concatenate(others)[None])


def test_a_branch_that_is_never_taken():
    model = built(BRANCHES, SIGNATURE, {"yes": floats(3, 4), "no": floats(3, 4)})
    feeds = [{"x": floats(2, 3), "flag": np.array(object=False)} for _ in range(4)]
    found = observed(model, feeds)
    empty = found.inputs["yes"]
    assert (empty.moments, empty.held_out, empty.fit) == (None, None, None)
    with pytest.raises(ValueError, match=r"^no value was observed$"):
        found.ranges["b"].percentile(50)


def test_constant_nodes_hold_weights_too(models):
    small = models["constant_nodes"]
    model = load_model(small.proto)
    statistics = observed(model, small.feeds).inputs
    assert set(statistics) == {"w1", "w2", "w3"}
    assert_columns(statistics["w1"], np.concatenate([feed["x"] for feed in small.feeds])[None])


def test_half_precision(models):
    small = models["float16"]
    model = load_model(small.proto)
    found = observed(model, small.feeds)
    inputs = np.concatenate([feed["x"].astype(np.float64) for feed in small.feeds])
    assert_columns(found.inputs["w1"], inputs[None])
    assert found.ranges["x"].most == inputs.max()


def test_a_float32_sum_of_many_samples_stays_exact():
    moments = Moments(1, 6)
    columns = 3 + floats(1, 40_000, 6)
    for part in np.array_split(columns, 400, axis=1):
        moments.add(part)
    exact = columns[0].astype(np.float64)
    assert moments.count == 40_000
    assert distance(moments.mean[0], exact.mean(axis=0)) < 1e-9
    assert distance(moments.second[0], exact.T @ exact / 40_000) < 1e-6


def test_what_was_held_out_is_used_where_there_is_nothing_else():
    model = built("y = MatMul (x, w)", "(float[N,3] x) => (float[N,4] y)", {"w": floats(3, 4)})
    for _ in range(40):
        feed = {"x": floats(4, 3)}
        statistics = observed(model, [feed]).inputs["w"]
        assert statistics.fit.count == 4
        assert distance(statistics.fit.mean[0], feed["x"].astype(float).mean(axis=0)) < 1e-6
        if statistics.moments is None:
            assert isinstance(statistics.held_out, HeldOut)
            break
    else:
        pytest.fail("no sample was held out")


def test_one_sample_in_five_is_held_out():
    model = built("y = MatMul (x, w)", "(float[N,3] x) => (float[N,4] y)", {"w": floats(3, 4)})
    feeds = [{"x": floats(1, 3)} for _ in range(200)]
    statistics = observed(model, feeds).inputs["w"]
    kept = statistics.held_out.columns.shape[1]
    assert statistics.moments.count == 200 - kept
    assert 20 <= kept <= 60
