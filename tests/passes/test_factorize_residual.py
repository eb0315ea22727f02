"""Branches of low rank that carry what coding lost."""

import numpy as np
import onnx
import pytest
from factorizing import factorized, inferred, off
from quantizing import built, context_of, feeds_of, matrix, numbers, run, snr, weight
from test_factorize import DENSE, FEEDS, UNSEEN

from onnxcomp import Context, Settings, compress, load_model
from onnxcomp.errors import ModelError, OptionError
from onnxcomp.graph import model_bytes
from onnxcomp.passes import Cluster, Factorize, Quantize

ROWS = {"x": (16, 24)}
IMAGES = {"x": (2, 12, 9, 9)}
FORMS = {
    "MatMul": ("y = MatMul(x, w)", {"w": matrix(24, 40)}, ROWS),
    "MatMul, left": ("y = MatMul(w, x)", {"w": weight(40, 32)}, {"x": (32, 24)}),
    "MatMul, Add": (
        "a = MatMul(x, w) y = Add(a, b)",
        {"w": matrix(24, 40), "b": numbers(40)},
        ROWS,
    ),
    "MatMul, a stack": ("y = MatMul(x, w)", {"w": numbers(2, 24, 40)}, {"x": (2, 16, 24)}),
    "Gemm": (
        "y = Gemm <transB = 1, alpha = 0.5, beta = 2.0> (x, w, b)",
        *({"w": weight(40, 24), "b": numbers(40)}, ROWS),
    ),
    "Gemm, left": ("y = Gemm <transA = 1> (w, x)", {"w": weight(32, 40)}, {"x": (32, 24)}),
    "Conv": (
        "y = Conv <pads = [1, 1, 1, 1], strides = [2, 1]> (x, w, b)",
        *({"w": weight(16, 12, 3, 3), "b": numbers(16)}, IMAGES),
    ),
    "Conv, groups": ("y = Conv <group = 2> (x, w)", {"w": weight(16, 6, 3, 3)}, IMAGES),
    "Conv, one axis": ("y = Conv (x, w)", {"w": weight(16, 12, 5)}, {"x": (2, 12, 20)}),
    "ConvTranspose": (
        "y = ConvTranspose <strides = [2, 2]> (x, w, b)",
        *({"w": weight(12, 16, 3, 3), "b": numbers(16)}, IMAGES),
    ),
    "read twice": (
        "a = MatMul(x, w) b = Relu(x) c = MatMul(b, w) y = Add(a, c)",
        *({"w": matrix(24, 40)}, ROWS),
    ),
}


def model(body, tensors, feed, opset=17):
    shape = ", ".join(map(str, feed["x"]))
    return inferred(built(f"(float[{shape}] x) => (float y) {{ {body} }}", tensors, opset=opset))


def coded(proto, folder, context=None, one=None):
    """Write a model to a file, and return the file and the model with coded weights."""
    path = folder / "plain.onnx"
    onnx.save(proto, path)
    result = load_model(proto)
    one = one or Cluster(bits=1, min_elements=1)
    one.apply(result, context or Context())
    return str(path), onnx.load_from_string(model_bytes(result))


@pytest.mark.parametrize("has_data", [False, True])
@pytest.mark.parametrize("name", list(FORMS))
def test_a_branch_brings_outputs_closer(name, has_data, tmp_path):
    proto = model(*FORMS[name])
    feeds = feeds_of(12, **FORMS[name][2])
    plain, small = coded(proto, tmp_path)
    context = context_of(small, feeds) if has_data else None
    result, verdicts = factorized(small, context, residual=plain, rank_ratio=0.9)
    assert verdicts["w"].reason.startswith("a branch of rank ")
    wanted = run(proto, feeds)
    assert off(wanted, run(result, feeds)) < 0.75 * off(wanted, run(small, feeds))


def test_an_old_gemm(tmp_path):
    proto = model("y = Gemm(x, w, b)", {"w": matrix(24, 40), "b": numbers(40)}, ROWS, opset=9)
    plain, small = coded(proto, tmp_path, one=Cluster(bits=2, min_elements=1))
    result, _ = factorized(small, residual=plain, rank_ratio=0.9)
    feeds = feeds_of(4, **ROWS)
    wanted = run(proto, feeds)
    assert off(wanted, run(result, feeds)) < 0.75 * off(wanted, run(small, feeds))


def test_rows_of_a_table_that_are_looked_up(tmp_path):
    text = "(int64[5] x) => (float[5, 24] y) { y = Gather(w, x) }"
    proto = built(text, {"w": numbers(64, 24)})
    plain, small = coded(proto, tmp_path)
    result, verdicts = factorized(small, residual=plain, rank_ratio=0.9)
    assert verdicts["w"].error < 0.3
    feeds = [{"x": np.arange(start, start + 5)} for start in range(0, 60, 5)]
    wanted = run(proto, feeds)
    assert off(wanted, run(result, feeds)) < 0.75 * off(wanted, run(small, feeds))


@pytest.mark.parametrize("sequential", [True, False])
@pytest.mark.parametrize(
    "one",
    [
        Cluster(bits=2, min_elements=1),
        Quantize(mode="weights", weight_type="int2", min_elements=1),
    ],
    ids=["cluster", "quantize"],
)
def test_what_coding_with_data_lost(one, sequential, tmp_path):
    context = context_of(DENSE, FEEDS)
    plain, small = coded(DENSE, tmp_path, context, one)
    options = {"residual": plain, "rank_ratio": 0.3, "sequential": sequential}
    result, verdicts = factorized(small, context_of(small, FEEDS), **options)
    assert any(each.verdict == "changed" for each in verdicts.values())
    wanted = run(DENSE, UNSEEN)
    assert snr(wanted, run(result, UNSEEN)) > snr(wanted, run(small, UNSEEN)) + 1


def test_verdicts_tell_what_the_file_grows_by(tmp_path):
    plain, small = coded(DENSE, tmp_path)
    result, verdicts = factorized(small, context_of(small, FEEDS), residual=plain)
    claimed = sum(each.bytes_after - each.bytes_before for each in verdicts.values())
    grown = len(result) - small.ByteSize()
    assert 0.8 * grown < claimed < 1.2 * grown


def test_a_larger_file_is_not_undone(tmp_path):
    plain, small = coded(DENSE, tmp_path)
    one = Factorize(residual=plain, min_elements=1)
    done = compress(small, [one], data=FEEDS, settings=Settings(bench=False))
    assert done.report.steps[0].status == "applied"
    assert done.report.output.bytes > done.report.source.bytes


def test_what_gets_no_branch(tmp_path):
    body = "a = MatMul(x, v) b = MatMul(a, u) c = MatMul(b, t) y = MatMul(c, w)"
    signs = np.where(numbers(24, 24) < 0, -1, 1).astype(np.float32)
    tensors = {"v": matrix(24, 24), "u": signs, "t": matrix(24, 24), "w": matrix(24, 40)}
    proto = model(body, tensors, ROWS)
    one = Cluster(bits=1, min_elements=1, granularity="tensor", exclude=("v",))
    plain, small = coded(proto, tmp_path, one=one)
    other = onnx.load(plain)
    del other.graph.node[2]
    other.graph.node[2].input[0] = "b"
    other.graph.initializer.remove(
        next(each for each in other.graph.initializer if each.name == "t")
    )
    onnx.save(other, plain)
    result, verdicts = factorized(small, residual=plain, rank_ratio=0.5)
    assert {name: each.reason for name, each in verdicts.items()} == {
        "v": "is not coded",
        "u": "lost nothing by being coded",
        "t": "has no weight of its name and shape in the model of --residual",
        "w": "a branch of rank 7 carries what coding lost",
    }
    _, verdicts = factorized(onnx.load_from_string(result), residual=plain)
    assert verdicts["w"].reason == "has a branch already"
    _, verdicts = factorized(small, residual=plain, rank_ratio=0.01)
    assert verdicts["w"].reason == "is too small for a branch of 1% of its weights"


def test_a_branch_that_does_not_help_is_not_made(tmp_path):
    plain, small = coded(DENSE, tmp_path, one=Cluster(bits=2, min_elements=1, include=("w1",)))
    # No two columns are alike, so that what a few of them lose is chance.
    context = context_of(small, [{"x": numbers(1, 48, seed=[5, place])} for place in range(10)])
    _, verdicts = factorized(small, context, residual=plain, rank_ratio=0.05)
    assert verdicts["w1"].reason == "gains nothing from a branch of rank 1"


def test_mistakes(tmp_path):
    with pytest.raises(OptionError, match="residual and macs exclude each other; give rank_ratio"):
        Factorize(residual="plain.onnx", macs=0.5)
    with pytest.raises(ModelError, match=r"none\.onnx"):
        factorized(DENSE, residual=str(tmp_path / "none.onnx"))
