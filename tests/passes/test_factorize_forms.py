"""Layers of every form become several that compute the same."""

import numpy as np
import onnx
import pytest
from factorizing import (
    factorized,
    inferred,
    off,
    planned,
    random_convolution,
    random_product,
    random_transposed,
)
from quantizing import built, feeds_of, matrix, numbers, operators, run

FULL = 1e-5
PARTS = range(10)
A_PART = 25


def check_exact(proto, feeds, choice, *, optimize):
    result, verdicts = planned(proto, f"w={choice}")
    verdict = verdicts["w"]
    assert verdict.verdict == "changed", verdict.reason
    wanted, found = (run(each, feeds, optimize=optimize) for each in (proto, result))
    assert off(wanted, found) < FULL, (verdict.reason, str(proto.graph.node[0]))


# 500 random layers in all.
@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("random_layer", [random_convolution, random_product])
def test_full_rank_gives_the_same_outputs(random_layer, part):
    for seed in range(part * A_PART, (part + 1) * A_PART):
        check_exact(*random_layer(seed), optimize=seed % 3 > 0)


@pytest.mark.parametrize("part", range(2))
def test_full_rank_of_transposed_convolutions(part):
    for seed in range(part * A_PART, (part + 1) * A_PART):
        check_exact(*random_transposed(seed), optimize=seed % 3 > 0)


@pytest.mark.parametrize("kernel", [(3,), (3, 3), (5, 5), (2, 3, 2)])
def test_polyadic_of_a_kernel_that_is_one(kernel):
    factors = [numbers(size, 2, seed=place) for place, size in enumerate((6, 5, *kernel))]
    letters = "abcde"[: len(factors)]
    w = np.einsum(",".join(f"{each}r" for each in letters) + "->" + letters, *factors)
    axes = ",".join(["N", "5", *"LMK"[: len(kernel)]])
    pads = ", ".join(["1"] * 2 * len(kernel))
    proto = built(
        f"(float[{axes}] x) => (float[{axes.replace('5', '6')}] y) "
        f"{{ y = Conv <pads = [{pads}]> (x, w) }}",
        {"w": w.astype(np.float32)},
    )
    proto = inferred(proto)
    feeds = feeds_of(2, x=(2, 5, *(7,) * len(kernel)))
    result, verdicts = planned(proto, "w=cp:2")
    assert verdicts["w"].reason.startswith("cp of rank 2: 2x5x1")
    assert off(run(proto, feeds), run(result, feeds)) < 1e-3


RECURRENT = """({kind}[5, N, 24] x) => ({kind}[5, D, N, 16] y, {kind}[D, N, 16] last) {{
    y, last = {op} <hidden_size = 16, direction = "{direction}"> (x, w, r, b) }}"""
GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}


@pytest.mark.parametrize("direction", ["forward", "bidirectional"])
@pytest.mark.parametrize("op", ["LSTM", "GRU", "RNN"])
def test_input_weights_of_recurrent_layers(op, direction):
    gates, count = GATES[op], 1 + (direction == "bidirectional")
    text = RECURRENT.format(kind="float", op=op, direction=direction)
    tensors = {
        "w": numbers(count, gates * 16, 24) / 5,
        "r": numbers(count, gates * 16, 16) / 5,
        "b": numbers(count, 2 * gates * 16),
    }
    proto, feeds = built(text, tensors), feeds_of(2, x=(5, 3, 24))
    result, verdicts = planned(proto, f"w=pair:{min(24, count * gates * 16)}")
    assert verdicts["w"].verdict == "changed"
    assert verdicts["r"].reason == f"is the recurrence weight of {op}, which is one operator"
    assert operators(result) == {"MatMul": 1, op: 1}
    assert off(run(proto, feeds), run(result, feeds)) < FULL


@pytest.mark.parametrize("ids", ["int64[N, L] ids", "int64[N] ids", "int64 ids"])
def test_embeddings(ids):
    proto = built(f"({ids}) => (float y) {{ y = Gather(w, ids) }}", {"w": matrix(60, 24)})
    proto = inferred(proto)
    shape = ids.count("N") + ids.count("L")
    feeds = [{"ids": np.asarray(np.random.default_rng(0).integers(60, size=(3,) * shape))}]
    result, _ = planned(proto, "w=pair:24")
    assert off(run(proto, feeds), run(result, feeds)) < FULL
    result, verdicts = planned(proto, "w=pair:6")
    assert operators(result) == {"Gather": 1, "MatMul": 1}
    assert 0.5 < verdicts["w"].error < 0.9


def test_a_weight_that_several_operators_read():
    proto = built(
        """(float[N, 32] x) => (float[N, 32] y, float[N, 32] z) {
            a = MatMul(x, w)  b = Tanh(a)  y = MatMul(b, w)  c = Relu(y)  z = MatMul(c, w) }""",
        {"w": matrix(32, 32)},
    )
    feeds = feeds_of(2, x=(4, 32))
    result, _ = planned(proto, "w=pair:32")
    assert len(onnx.load_from_string(result).graph.initializer) == 2
    assert off(run(proto, feeds), run(result, feeds)) < FULL


def test_gemm_of_old_opsets_has_a_bias():
    proto = built(
        "(float[N, 32] x) => (float[N, 24] y) { y = Gemm(x, w, c) }",
        {"w": matrix(32, 24), "c": numbers(24)},
        opset=9,
        ir_version=4,
    )
    feeds = feeds_of(2, x=(4, 32))
    result, _ = planned(proto, "w=pair:24")
    assert off(run(proto, feeds), run(result, feeds)) < FULL


@pytest.mark.parametrize(
    ("body", "tensors", "reason"),
    [
        ("y = Conv <group = 6> (x, w)", {"w": numbers(12, 1, 3, 3)}, "depthwise convolution"),
        ("y = ConvTranspose <group = 6> (x, w)", {"w": numbers(6, 1, 3, 3)}, "depthwise"),
        ("a = Transpose(w)  y = Conv(x, a)", {"w": numbers(3, 3, 6, 8)}, "other operators"),
        ("y = MatMul(w, w)", {"w": numbers(8, 8)}, "read in several ways"),
    ],
)
def test_what_cannot_be_factorized(body, tensors, reason):
    proto = built(f"(float[N, 6, 9, 9] x) => (float y) {{ {body} }}", tensors)
    if "x" not in body:
        del proto.graph.input[:]
    proto = inferred(proto)
    _, verdicts = factorized(proto, rank_ratio=0.5)
    assert reason in verdicts["w"].reason
