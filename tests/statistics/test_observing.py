"""Looking on while a model runs: pairs, many columns, masks, little memory."""

import sys

import numpy as np
import pytest
from observed import (
    RANDOM,
    assert_columns,
    beside,
    built,
    distance,
    floats,
    layer_of,
    observed,
    samples_of,
    whole,
)

from onnxcomp import load_model
from onnxcomp.graph import copy_model
from onnxcomp.statistics import Moments, columns, layers, observe, streaming

CHAIN = (
    "a = MatMul (x, first)  b = Tanh (a)  y = MatMul (b, second)",
    "(float[N,5] x) => (float[N,3] y)",
)


def changed(model, name, values):
    copied = copy_model(model)
    layer_of(copied, name).weight.tensor.values = values
    return copied


def test_columns_beside_those_of_the_original():
    first, other = floats(5, 6), floats(5, 6)
    original = built(*CHAIN, {"first": first, "second": floats(6, 3)})
    model = changed(original, "first", other)
    feeds = [{"x": 1 + floats(4, 5)} for _ in range(30)]
    statistics = beside(model, original, feeds)["second"]
    moments = statistics.moments
    assert moments.paired
    assert statistics.held_out.paired
    # What is held out is exact, so that the rest can be told by what is missing from all.
    inputs = np.concatenate([feed["x"] for feed in feeds]).astype(np.float64)
    now, before = np.tanh(inputs @ other), np.tanh(inputs @ first)
    held_out = statistics.held_out
    kept, kept_before = (
        each[0].astype(np.float64) for each in (held_out.columns, held_out.original)
    )
    count = moments.count
    assert count + len(kept) == len(inputs)
    assert distance(moments.mean[0], (now.sum(0) - kept.sum(0)) / count) < 1e-5
    assert distance(moments.original_mean[0], (before.sum(0) - kept_before.sum(0)) / count) < 1e-5
    assert distance(moments.second[0], (now.T @ now - kept.T @ kept) / count) < 1e-5
    cross = (before.T @ now - kept_before.T @ kept) / count
    assert distance(moments.cross[0], cross) < 1e-5
    assert distance(moments.cross[0], cross.T) > 1e-2


def test_the_held_out_columns_of_both_belong_together():
    first = floats(5, 6)
    original = built(*CHAIN, {"first": first, "second": floats(6, 3)})
    model = changed(original, "first", 2 * first)
    feeds = [{"x": floats(9, 5) / 8} for _ in range(40)]
    held_out = beside(model, original, feeds)["second"].held_out
    now, before = (
        np.arctanh(each.astype(np.float64)) for each in (held_out.columns, held_out.original)
    )
    assert now == pytest.approx(2 * before, rel=1e-3, abs=1e-4)


def test_pairs_of_a_convolution_are_cut_at_the_same_places():
    model = built(
        "y = Conv <pads = [1, 1]> (x, w)",
        "(float[N,2,L] x) => (float[N,3,L] y)",
        {"w": floats(3, 2, 3)},
    )
    statistics = beside(model, copy_model(model), [{"x": floats(3, 2, 400)} for _ in range(25)])[
        "w"
    ]
    moments = statistics.moments
    assert moments.count % columns.MOST_COLUMNS == 0
    assert distance(moments.cross, moments.second) < 1e-5
    assert np.array_equal(statistics.held_out.columns, statistics.held_out.original)


@pytest.mark.parametrize("count", [1, 255, 256, 700])
def test_paired_moments(count):
    now, before = floats(2, count, 4), floats(2, count, 4)
    moments = Moments(2, 4, 4)
    for part in np.array_split(np.arange(count), 3):
        moments.add(now[:, part], before[:, part])
    exact, original = now.astype(np.float64), before.astype(np.float64)
    assert distance(moments.cross, original.transpose(0, 2, 1) @ exact / count) < 1e-5
    assert distance(moments.original_mean, original.mean(axis=1)) < 1e-5


def test_unpaired_moments_are_their_own_original():
    moments = Moments(1, 3)
    moments.add(floats(1, 10, 3))
    assert not moments.paired
    assert np.array_equal(moments.cross, moments.second)
    assert np.array_equal(moments.original_mean, moments.mean)


SWITCH = """
    a = MatMul (x, first)
    total = ReduceSum <keepdims = 0> (a)
    zero = Constant <value = float {0}> ()
    flag = Greater (total, zero)
    y = If (flag) <
        then_branch = one () => (float[N,4] b) { b = MatMul (a, yes) },
        else_branch = two () => (float[N,4] c) { c = Gemm (a, no) }
    >
"""


def test_a_sample_for_which_the_original_branches_elsewhere_does_not_count():
    first = floats(4, 4)
    weights = {"first": first, "yes": floats(4, 4), "no": floats(4, 4)}
    original = built(SWITCH, "(float[N,4] x) => (float[N,4] y)", weights)
    other = np.concatenate([first[:, :2], -first[:, 2:]], axis=1)
    model = changed(original, "first", other)
    feeds = [{"x": floats(2, 4)} for _ in range(40)]
    found = beside(model, original, feeds)
    for name, sign in (("yes", 1), ("no", -1)):
        both = sum(
            sign * (feed["x"] @ first).sum() > 0 and sign * (feed["x"] @ other).sum() > 0
            for feed in feeds
        )
        held = found[name].held_out.columns.shape[1] if found[name].held_out else 0
        assert 0 < both < 40
        assert found[name].moments.count + held == 2 * both


def test_at_most_so_many_columns_of_a_sample():
    model = built(
        "y = Conv (x, w)", "(float[N,1,L] x) => (float[N,2,L] y)", {"w": floats(2, 1, 3)}
    )
    # A ramp: the mean of a column says where it was cut.
    size = 6000
    ramp = np.linspace(0, 1, size, dtype=np.float32).reshape(1, 1, size)
    feeds = [{"x": ramp + np.float32(1e-6) * floats(1, 1, size)} for _ in range(30)]
    statistics = observed(model, feeds).inputs["w"]
    count = statistics.moments.count
    held = statistics.held_out.columns[0]
    assert count % columns.MOST_COLUMNS == 0
    assert len(held) <= 1024
    # The deviation of a uniform mean is 1 / sqrt(12 n); five of them are hardly ever exceeded.
    for mean, number in ((statistics.moments.mean[0, 1], count), (held[:, 1].mean(), len(held))):
        assert abs(mean - 0.5) < 5 / np.sqrt(12 * number)
    assert statistics.moments.second[0, 1, 1] == pytest.approx(1 / 3, abs=0.02)
    assert len(np.unique(held[:, 1].round(4))) > 0.9 * len(held)


def test_each_column_is_looked_at_once():
    view = columns.Features()
    rows = np.arange(3000, dtype=np.float32).reshape(3000, 1)
    cut = view.columns([rows], None, np.random.default_rng(0))
    assert cut.shape == (1, columns.MOST_COLUMNS, 1)
    assert len(np.unique(cut)) == columns.MOST_COLUMNS
    assert np.array_equal(cut, np.sort(cut, axis=1))


MASKED = (
    "e = Gather (table, ids)  h = MatMul (e, w)  a = Tanh (h)  y = MatMul (a, v)",
    "(int64[N,L] ids, int64[N,L] attention_mask) => (float[N,L,3] y)",
    {"table": floats(20, 5), "w": floats(5, 6), "v": floats(6, 3)},
)


def test_masked_places_do_not_count():
    model = built(*MASKED)
    plain, padded, reference = [], [], []
    for place in range(9):
        ids = RANDOM.integers(1, 20, (1, 4 + place % 3))
        plain.append({"ids": ids, "attention_mask": np.ones_like(ids)})
        extra = ((0, 0), (place % 2, 3))
        padded.append(
            {"ids": np.pad(ids, extra), "attention_mask": np.pad(np.ones_like(ids), extra)}
        )
        reference.append(ids.reshape(-1))
    rows = MASKED[2]["table"].astype(np.float64)[np.concatenate(reference)]
    for feeds in (plain, padded):
        found = observed(model, feeds).inputs
        assert_columns(found["w"], rows[None])
        assert_columns(found["v"], np.tanh(rows @ MASKED[2]["w"])[None])


def test_masked_places_of_flattened_rows_do_not_count():
    model = built(
        "e = Gather (table, ids)  f = Reshape (e, shape)  y = MatMul (f, w)",
        "(int64[N,L] ids, bool[N,L] the_mask) => (float[M,3] y)",
        {"table": floats(20, 5), "shape": np.array([-1, 5]), "w": floats(5, 3)},
    )
    ids = np.arange(8).reshape(2, 4)
    mask = np.array([[True, True, False, True], [False, False, True, True]])
    found = observed(model, [{"ids": ids, "the_mask": mask}]).inputs["w"]
    table = layer_of(model, "table").weight.load()
    assert_columns(found, table[ids[mask]][None])


def test_a_mask_of_another_shape_does_not_matter():
    model = built(
        "p = Pad (x, pads)  m = Cast <to = 1> (mask)  s = ReduceSum <keepdims = 0> (m)"
        "  h = MatMul (p, w)  y = Mul (h, s)",
        "(float[N,L,5] x, int64[N,K] mask) => (float[N,M,3] y)",
        {"pads": np.array([0, 1, 0, 0, 0, 0]), "w": floats(5, 3)},
    )
    x = floats(1, 3, 5)
    found = observed(model, [{"x": x, "mask": np.array([[1, 0, 0]])}]).inputs["w"]
    assert_columns(found, np.concatenate([np.zeros((1, 5)), x[0]])[None])


@pytest.mark.parametrize("most", [1, 1500])
@pytest.mark.parametrize("name", ["convnet", "recurrent", "if_bodies", "tied"])
def test_little_memory_changes_nothing(models, monkeypatch, name, most):
    small = models[name]
    model = load_model(small.proto)
    plain = observed(model, small.feeds)
    walks = []

    def counted(*arguments):
        found = portions(*arguments)
        walks.extend(found)
        return found

    portions = streaming.portions
    monkeypatch.setattr(streaming, "MOST_BYTES", most)
    monkeypatch.setattr("onnxcomp.statistics.observing.portions", counted)
    told = []
    again = observe(model, samples_of(model, small.feeds), told.append)
    assert len(walks) > 1
    assert told == sorted(told)
    assert told[-1] == pytest.approx(1)
    assert set(again.inputs) == set(plain.inputs)
    for key, statistics in plain.inputs.items():
        for mine, theirs in zip(whole(statistics), whole(again.inputs[key]), strict=True):
            # ONNX Runtime fuses other nodes where other tensors are looked at.
            assert distance(mine, theirs) < 1e-5
    for key, values in plain.ranges.items():
        other = again.ranges[key]
        assert (values.least, values.most) == pytest.approx((other.least, other.most), rel=1e-4)
        assert values.points()[1].sum() == other.points()[1].sum()


def test_the_model_is_not_changed(models):
    for name in ("convnet", "if_bodies", "recurrent"):
        model = load_model(models[name].proto)
        outputs = [list(scope.outputs) for scope in model.scopes()]
        nodes = [list(scope.nodes) for scope in model.scopes()]
        observed(model, models[name].feeds)
        assert [list(scope.outputs) for scope in model.scopes()] == outputs
        assert [list(scope.nodes) for scope in model.scopes()] == nodes


def test_very_wide_columns_are_not_observed(monkeypatch):
    monkeypatch.setattr(sys.modules["onnxcomp.statistics.layers"], "WIDEST", 5)
    model = built(
        "a = MatMul (x, w)  y = MatMul (a, v)",
        "(float[N,5] x) => (float[N,3] y)",
        {"w": floats(5, 6), "v": floats(6, 3)},
    )
    found = observed(model, [{"x": floats(3, 5)}]).inputs
    assert found["w"].fit is not None
    assert "v" not in found
    reason = "multiplies it with columns of more than 5 elements"
    assert [layer.reason for layer in layers(model)] == ["", reason]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e30])
def test_a_sample_that_cannot_be_summed_up_does_not_count(bad):
    model = built("y = MatMul (x, w)", "(float[N,3] x) => (float[N,4] y)", {"w": floats(3, 4)})
    feeds = [{"x": floats(4, 3)} for _ in range(9)]
    spoiled = {"x": np.full((4, 3), bad, np.float32)}
    found = observed(model, [*feeds[:5], spoiled, *feeds[5:]]).inputs["w"]
    assert_columns(found, np.concatenate([feed["x"] for feed in feeds])[None])


RESIDUALS = {
    "matmul": ("b = MatMul (a, w)  y = Add (b, r)", (5, 4)),
    "the other way round": ("b = MatMul (a, w)  y = Add (r, b)", (5, 4)),
    "after a bias": ("b = MatMul (a, w)  d = Add (b, k)  y = Add (d, r)", (5, 4)),
    "gemm": ("b = Gemm <transB = 1> (a, w)  y = Add (b, r)", (4, 5)),
}


@pytest.mark.parametrize("case", RESIDUALS.values(), ids=list(RESIDUALS))
def test_what_the_residual_of_a_block_lacks(case):
    body, shape = case
    weights = {"p": floats(3, 5), "q": floats(3, 4), "w": floats(*shape), "k": floats(4)}
    used = {name: each for name, each in weights.items() if name != "k" or "k" in body}
    original = built(
        f"a = MatMul (x, p)  r = MatMul (x, q)  {body}",
        "(float[N,3] x) => (float[N,4] y)",
        used,
    )
    others = {"p": floats(3, 5), "q": floats(3, 4)}
    model = changed(changed(original, "p", others["p"]), "q", others["q"])
    feeds = [{"x": floats(6, 3)} for _ in range(12)]
    moments = beside(model, original, feeds)["w"].fit
    assert moments.original_mean.shape == (1, 9)
    # One sample in five is held out: what is linear in the second moment of x is not.
    second = beside(model, original, feeds)["p"].fit.second[0]
    lacking = weights["q"] - others["q"]
    assert distance(moments.cross[0, :5], weights["p"].T @ second @ others["p"]) < 1e-4
    assert distance(moments.cross[0, 5:], lacking.T @ second @ others["p"]) < 1e-4


def test_the_residual_of_a_convolution():
    original = built(
        "a = Conv <pads = [1, 1]> (x, p)  r = Conv (x, q)"
        "  b = Conv <pads = [1, 1]> (a, w)  y = Add (b, r)",
        "(float[N,2,L] x) => (float[N,4,L] y)",
        {"p": floats(3, 2, 3), "q": floats(4, 2, 1), "w": floats(4, 3, 3)},
    )
    model = changed(original, "q", np.zeros((4, 2, 1), np.float32))
    feeds = [{"x": floats(2, 2, 9)} for _ in range(12)]
    found = beside(model, original, feeds)
    mean = layer_of(original, "q").weight.load()[:, :, 0] @ found["q"].fit.mean[0]
    assert distance(found["w"].fit.original_mean[0, 9:], mean) < 1e-4


NO_RESIDUALS = {
    "spread over rows": ("r = Tanh (k)", "b = MatMul (x, w)", "c = Add (b, r)"),
    "one number": ("r = ReduceMean <keepdims = 0> (x)", "b = MatMul (x, w)", "c = Add (b, r)"),
    "turned": (
        "r = MatMul (x, v)",
        "t = Transpose (x)  b = Gemm <transA = 1> (t, w)",
        "c = Add (b, r)",
    ),
    "scaled": ("r = MatMul (x, v)", "b = Gemm <alpha = 0.5> (x, w)", "c = Add (b, r)"),
    "read twice": ("r = MatMul (x, v)", "b = MatMul (x, w)", "d = Add (b, r)  c = Mul (d, b)"),
    "in a branch": (
        "r = Tanh (x)",
        "b = MatMul (x, w)",
        """c = If (flag) <
            then_branch = one () => (float[N,5] s) { u = Exp (r)  s = Add (b, u) },
            else_branch = two () => (float[N,5] z) { z = Tanh (x) }
        >""",
    ),
}


@pytest.mark.parametrize("case", NO_RESIDUALS.values(), ids=list(NO_RESIDUALS))
def test_what_is_no_residual_does_no_harm(case):
    weights = {"w": floats(5, 5), "v": floats(5, 5), "k": floats(1, 5)}
    body = "  ".join([*case, "y = Identity (c)"])
    used = {
        name: each for name, each in weights.items() if f"({name})" in body or f", {name})" in body
    }
    model = built(body, "(float[N,5] x, bool flag) => (float[N,5] y)", used)
    feeds = [{"x": floats(3, 5), "flag": np.array(object=True)} for _ in range(9)]
    moments = beside(model, copy_model(model), feeds)["w"].fit
    assert distance(moments.cross[:, :5], moments.second) < 1e-5
    assert not moments.cross[:, 5:].any()


def test_a_vector_for_each_image_is_no_residual():
    model = built(
        "t = Gemm (e, q)  r = Reshape (t, shape)  a = Conv (x, w)  y = Add (a, r)",
        "(float[N,2,H,V] x, float[N,3] e) => (float[N,4,H2,V2] y)",
        {"q": floats(3, 4), "shape": np.array([0, 4, 1, 1]), "w": floats(4, 2, 3, 3)},
    )
    feeds = [{"x": floats(2, 2, 5, 5), "e": floats(2, 3)} for _ in range(9)]
    moments = beside(model, changed(model, "q", floats(3, 4)), feeds)["w"].fit
    assert not moments.cross[:, 18:].any()
