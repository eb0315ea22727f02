"""Adding to what layers give: outputs move by it and by nothing else, and the file by so much."""

import ml_dtypes
import numpy as np
import onnx
import pytest

from onnxcomp import load_model
from onnxcomp.graph import copy_model, model_bytes
from onnxcomp.recovery import add_bias, bias_bytes, bias_of, takes_bias
from onnxcomp.runtime import open_session
from onnxcomp.statistics import layers
from onnxcomp.testing.small_model import add_weights, parsed

RANDOM = np.random.default_rng(11)
NAME_BYTES = 64


def floats(*shape):
    return RANDOM.standard_normal(shape).astype(np.float32)


def built(body, signature, weights, dtype=np.float32):
    name = "float16" if dtype is np.float16 else "float"
    text = f'<ir_version: 8, opset_import: ["" : 17]> built {signature} {{ {body} }}'
    values = {key: each.astype(dtype) for key, each in weights.items()}
    return load_model(parsed(text.replace("float[", f"{name}["), values))


def layer_of(model, name):
    (layer,) = (each for each in layers(model) if each.name == name)
    return layer


def outputs_of(model, feed):
    data = model_bytes(model)
    onnx.checker.check_model(data, full_check=True)
    return open_session(data).run(feed)


def shifted(model, name, feed):
    """Return what was added to a layer, the outputs before and after, and the model after."""
    before = outputs_of(model, feed)
    changed = copy_model(model)
    layer = layer_of(changed, name)
    (use,) = layer.uses
    assert takes_bias(use)
    shift = RANDOM.standard_normal(layer.form.matrices[:2])
    claimed = bias_bytes(use, layer.weight.dtype)
    add_bias(use, shift, layer.weight.dtype)
    grown = len(model_bytes(changed)) - len(model_bytes(model))
    assert abs(grown - claimed) <= NAME_BYTES
    assert model_bytes(load_model(model_bytes(changed))) == model_bytes(changed)
    return shift, before, outputs_of(changed, feed), changed


IMAGE = "(float[N,4,5,5] x) => (float[N,6,a,b] y)"
ROWS = "(float[N,5] x) => (float[N,4] y)"
BIAS = {"b": floats(6)}
CASES = {
    "conv": ("y = Conv (x, w)", IMAGE, {"w": floats(6, 4, 3, 3)}, 1, 1),
    "conv with bias": ("y = Conv (x, w, b)", IMAGE, {"w": floats(6, 4, 3, 3), **BIAS}, 1, 1),
    "conv, groups": (
        "y = Conv <group = 2> (x, w)",
        *(IMAGE, {"w": floats(6, 2, 3, 3)}, 1, 1),
    ),
    "conv with a bias of zeros": (
        "y = Conv (x, w, b)",
        *(IMAGE, {"w": floats(6, 4, 1, 1), "b": np.zeros(6)}, 1, 1),
    ),
    "gemm": ("y = Gemm (x, w)", ROWS, {"w": floats(5, 4)}, -1, 1),
    "gemm with C": ("y = Gemm (x, w, c)", ROWS, {"w": floats(5, 4), "c": floats(4)}, -1, 1),
    "gemm, transB": ("y = Gemm <transB = 1> (x, w)", ROWS, {"w": floats(4, 5)}, -1, 1),
    "gemm, alpha and beta": (
        "y = Gemm <alpha = 0.5, beta = 2.0> (x, w, c)",
        *(ROWS, {"w": floats(5, 4), "c": floats(4)}, -1, 0.5),
    ),
    "gemm, alpha and no C": (
        "y = Gemm <alpha = 0.5, beta = 2.0> (x, w)",
        *(ROWS, {"w": floats(5, 4)}, -1, 0.5),
    ),
    "gemm, C of one row": (
        "y = Gemm (x, w, c)",
        *(ROWS, {"w": floats(5, 4), "c": floats(1, 4)}, -1, 1),
    ),
    "gemm, C of one number": (
        "y = Gemm (x, w, c)",
        *(ROWS, {"w": floats(5, 4), "c": floats(1)}, -1, 1),
    ),
    "gemm, C of all rows": (
        "y = Gemm (x, w, c)",
        *("(float[3,5] x) => (float[3,4] y)", {"w": floats(5, 4), "c": floats(3, 4)}, -1, 1),
    ),
    "gemm, C of one column": (
        "y = Gemm (x, w, c)",
        *("(float[3,5] x) => (float[3,40] y)", {"w": floats(5, 40), "c": floats(3, 1)}, -1, 1),
    ),
    "matmul, Add": (
        "a = MatMul (x, w)  y = Add (a, b)",
        *(ROWS, {"w": floats(5, 4), "b": floats(4)}, -1, 1),
    ),
    "matmul, Add the other way round": (
        "a = MatMul (x, w)  y = Add (b, a)",
        *(ROWS, {"w": floats(5, 4), "b": floats(1, 4)}, -1, 1),
    ),
    "matmul, Add of one number": (
        "a = MatMul (x, w)  y = Add (a, b)",
        *(ROWS, {"w": floats(5, 4), "b": floats(1)}, -1, 1),
    ),
    "matmul that gives a graph output": ("y = MatMul (x, w)", ROWS, {"w": floats(5, 4)}, -1, 1),
    "matmul with another reader": (
        "a = MatMul (x, w)  y = Identity (a)",
        *(ROWS, {"w": floats(5, 4)}, -1, 1),
    ),
    "matmul, three axes": (
        "y = MatMul (x, w)",
        *("(float[2,N,5] x) => (float[2,N,4] y)", {"w": floats(5, 4)}, -1, 1),
    ),
}


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize("case", CASES.values(), ids=list(CASES))
def test_outputs_move_by_the_shift(case, dtype):
    body, signature, weights, axis, factor = case
    model = built(body, signature, weights, dtype)
    dims = signature[signature.index("[") + 1 : signature.index("]")].split(",")
    feed = {"x": floats(*(int(each) if each.isdigit() else 3 for each in dims)).astype(dtype)}
    shift, before, after, _ = shifted(model, "w", feed)
    moved = np.moveaxis(after["y"].astype(np.float64) - before["y"], axis, -1)
    wanted = np.broadcast_to(factor * shift.reshape(-1), moved.shape)
    assert moved == pytest.approx(wanted, abs=1e-5 if dtype is np.float32 else 2e-2)


NOT_ONE_EACH = {"gemm, C of all rows", "gemm, C of one column"}


@pytest.mark.parametrize("name", list(CASES))
def test_what_is_added_is_read_again(name):
    body, signature, weights, *_ = CASES[name]
    model = built(body, signature, weights)
    (use,) = layer_of(model, "w").uses
    before = bias_of(use)
    if name in NOT_ONE_EACH:
        assert before is None
        return
    shift = RANDOM.standard_normal(use.form.matrices[:2])
    add_bias(use, shift, np.dtype(np.float32))
    assert bias_of(use) - before == pytest.approx(shift, abs=1e-6)


def test_a_column_is_no_bias_of_outputs():
    signature = "(float[4,5] x) => (float[4,4] y)"
    weights = {"w": floats(5, 4), "c": floats(4, 1)}
    (use,) = layer_of(built("y = Gemm (x, w, c)", signature, weights), "w").uses
    assert bias_of(use) is None


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("group", [1, 2])
def test_transposed_convolution(bias, group):
    """Where taps do not overlap, each output gathers one: on average it moves by the shift."""
    weights = {"w": floats(4, 6 // group, 2, 2)} | (BIAS if bias else {})
    model = built(
        f"y = ConvTranspose <strides = [2, 2], group = {group}> (x, w{', b' if bias else ''})",
        IMAGE,
        weights,
    )
    shift, before, after, _ = shifted(model, "w", {"x": floats(2, 4, 5, 5)})
    moved = (after["y"] - before["y"]).astype(np.float64)
    # One shift for each channel and tap; a bias is the mean of its taps.
    wanted = shift.reshape(6, 4).mean(axis=1)
    assert moved == pytest.approx(np.broadcast_to(wanted[:, None, None], moved.shape), abs=1e-5)


def test_transposed_convolution_with_overlap():
    model = built("y = ConvTranspose (x, w)", IMAGE, {"w": floats(4, 6, 3, 3)})
    shift, before, after, _ = shifted(model, "w", {"x": floats(2, 4, 5, 5)})
    # Away from the border each output gathers all nine taps.
    moved = (after["y"] - before["y"])[:, :, 2:-2, 2:-2].astype(np.float64)
    wanted = shift.reshape(6, 9).sum(axis=1)
    assert moved == pytest.approx(np.broadcast_to(wanted[:, None, None], moved.shape), abs=1e-5)


@pytest.mark.parametrize("operator", ["LSTM", "GRU"])
@pytest.mark.parametrize("name", ["w", "r"])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("directions", [1, 2])
def test_recurrent(operator, name, bias, directions):
    """A shift of the gates is the same as one more input that is always one."""
    gates = 4 if operator == "LSTM" else 3
    weights = {"w": floats(directions, gates * 3, 5), "r": floats(directions, gates * 3, 3)}
    if bias:
        weights["b"] = floats(directions, 2 * gates * 3)
    way = "bidirectional" if directions == 2 else "forward"
    attributes = f'hidden_size = 3, direction = "{way}"'
    if operator == "GRU":
        attributes += ", linear_before_reset = 1"
    body = f"y = {operator} <{attributes}> (x, w, r{', b' if bias else ''})"
    signature = f"(float[L,N,5] x) => (float[L,{directions},N,3] y)"
    feed = {"x": floats(4, 2, 5)}
    shift, before, after, _ = shifted(built(body, signature, weights), name, feed)
    expected = dict(weights)
    both = np.zeros((directions, 2 * gates * 3)) if not bias else weights["b"].astype(np.float64)
    half = slice(gates * 3) if name == "w" else slice(gates * 3, None)
    both = both.copy()
    both[:, half] += shift
    expected["b"] = both.astype(np.float32)
    with_bias = f"y = {operator} <{attributes}> (x, w, r, b)"
    wanted = outputs_of(built(with_bias, signature, expected), feed)
    assert after["y"] == pytest.approx(wanted["y"], abs=1e-6)
    assert np.abs(after["y"] - before["y"]).max() > 1e-2


def test_two_shifts_of_one_recurrent_layer_add_up():
    weights = {"w": floats(1, 12, 5), "r": floats(1, 12, 3)}
    body, signature = (
        "y = LSTM <hidden_size = 3> (x, w, r)",
        "(float[L,N,5] x) => (float[L,1,N,3] y)",
    )
    model = built(body, signature, weights)
    shifts = {name: RANDOM.standard_normal((1, 12)) for name in ("w", "r")}
    for name, shift in shifts.items():
        (use,) = layer_of(model, name).uses
        add_bias(use, shift, np.dtype(np.float32))
    (use,) = layer_of(model, "w").uses
    assert bias_bytes(use, np.dtype(np.float32)) == 0
    assert use.node.inputs[3].values == pytest.approx(np.concatenate([*shifts.values()], axis=1))


def test_in_a_branch():
    text = """<ir_version: 8, opset_import: ["" : 17]>
    built (float[N,5] x, bool flag) => (float[N,4] y) {
        y = If (flag) <
            then_branch = one () => (float[N,4] a) { a = MatMul (x, w) },
            else_branch = two () => (float[N,4] b) { b = MatMul (x, v) }
        >
    }"""
    proto = parsed(text, {"v": floats(5, 4)})
    add_weights(proto.graph.node[0].attribute[0].g, {"w": floats(5, 4)})
    model = load_model(proto)
    for flag in (True, False):
        feed = {"x": floats(3, 5), "flag": np.array(flag)}
        shift, before, after, changed = shifted(model, "w", feed)
        assert len(changed.nodes) == 1
        moved = after["y"] - before["y"]
        wanted = np.broadcast_to(shift if flag else 0, moved.shape)
        assert moved == pytest.approx(wanted, abs=1e-5)


def test_all_that_reads_a_matmul_is_moved():
    model = built(
        "a = MatMul (x, w)  b = Tanh (a)  c = Add (a, k)  y = Mul (b, c)",
        ROWS,
        {"w": floats(5, 4), "k": floats(4)},
    )
    x = floats(3, 5)
    weight, constant = (layer_of(model, name).weight.load() for name in ("w", "k"))
    shift, _, after, _ = shifted(model, "w", {"x": x})
    moved = x @ weight + shift
    assert after["y"] == pytest.approx(np.tanh(moved) * (moved + constant), abs=1e-5)


def test_an_add_that_others_read_too_keeps_its_constant_for_them():
    model = built(
        "a = MatMul (x, w)  b = Add (a, k)  c = Mul (b, k)  y = Identity (c)",
        ROWS,
        {"w": floats(5, 4), "k": floats(4)},
    )
    x = floats(3, 5)
    before = copy_model(model)
    weight, constant = (layer_of(model, name).weight.load() for name in ("w", "k"))
    (use,) = layer_of(model, "w").uses
    claimed = bias_bytes(use, np.dtype(np.float32))
    shift = RANDOM.standard_normal((1, 4))
    add_bias(use, shift, np.dtype(np.float32))
    after = outputs_of(model, {"x": x})
    assert after["y"] == pytest.approx((x @ weight + shift + constant) * constant, abs=1e-5)
    assert abs(len(model_bytes(model)) - len(model_bytes(before)) - claimed) <= NAME_BYTES


def test_a_bias_that_two_layers_share():
    size = 200
    model = built(
        "a = Gemm (x, w, b)  c = Gemm (x, v, b)  y = Add (a, c)",
        f"(float[N,5] x) => (float[N,{size}] y)",
        {"w": floats(5, size), "v": floats(5, size), "b": floats(size)},
    )
    shift, before, after, _ = shifted(model, "w", {"x": floats(3, 5)})
    moved = after["y"] - before["y"]
    assert moved == pytest.approx(np.broadcast_to(shift, moved.shape), abs=1e-5)


@pytest.mark.parametrize(
    ("body", "extra"),
    [
        ("y = MatMul (w, x)", {}),
        ("y = Gemm (w, x)", {}),
        ("y = Gemm <alpha = 0.0> (x, w)", {}),
        ("y = Gemm <beta = 0.0> (x, w, c)", {"c": floats(5)}),
        ("c = Identity (x)  y = Gemm (x, w, c)", {}),
    ],
)
def test_what_takes_no_bias(body, extra):
    model = built(body, "(float[5,5] x) => (float[5,5] y)", {"w": floats(5, 5), **extra})
    (use,) = layer_of(model, "w").uses
    assert not takes_bias(use)


def test_a_bias_that_a_caller_may_override_is_not_changed():
    signature = "(float[3,5] x, float[5] b) => (float[3,5] y)"
    weights = {"w": floats(5, 5), "b": floats(5)}
    (use,) = layer_of(built("y = Gemm (x, w, b)", signature, weights), "w").uses
    assert not takes_bias(use)
    feed, other = {"x": floats(3, 5)}, floats(5)
    model = built("a = MatMul (x, w)  y = Add (a, b)", signature, weights)
    shift, before, after, changed = shifted(model, "w", feed)
    assert after["y"] == pytest.approx(before["y"] + shift, abs=1e-5)
    moved = outputs_of(changed, {**feed, "b": other})["y"] - after["y"]
    assert moved == pytest.approx(np.broadcast_to(other - weights["b"], moved.shape), abs=1e-5)


def test_a_shift_is_rounded_to_the_type_of_the_layer():
    model = built("y = Conv (x, w)", IMAGE, {"w": floats(6, 4, 1, 1)})
    (use,) = layer_of(model, "w").uses
    add_bias(use, np.full((1, 6), 1 / 3), np.dtype(ml_dtypes.bfloat16))
    assert use.node.inputs[2].dtype == ml_dtypes.bfloat16
