"""Layers: what they share, how they depend on each other, why some cannot be observed."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from observed import assert_columns, built, floats, layer_of, observed

from onnxcomp import load_model
from onnxcomp.graph.operators import RECURRENCES
from onnxcomp.statistics import Form, Order, layers, load_statistics


def levels_of(model, names=None):
    """Return the names of the layers of each level."""
    some = [
        layer for layer in layers(model) if layer.uses and (names is None or layer.name in names)
    ]
    return [[layer.name for layer in level] for level in Order(model, some).levels().values()]


def recurring(model, names=None):
    """Return the names of the layers that depend on themselves."""
    some = [
        layer for layer in layers(model) if layer.uses and (names is None or layer.name in names)
    ]
    return [layer.name for layer in Order(model, some).recurring()]


FAN = """
    q = MatMul (x, wq)  k = MatMul (x, wk)  v = Gemm (x, wv)
    qk = Mul (q, k)  s = Add (qk, v)
    out = MatMul (s, wo)
    y = Add (out, x)
"""
FAN_WEIGHTS = {name: floats(4, 4) for name in ("wq", "wk", "wv", "wo")}


def test_layers_that_share_an_input_share_its_statistics(tmp_path):
    model = built(FAN, "(float[N,4] x) => (float[N,4] y)", FAN_WEIGHTS)
    found = observed(model, [{"x": floats(3, 4)} for _ in range(3)])
    assert found.inputs["wq"] is found.inputs["wk"] is found.inputs["wv"]
    assert found.inputs["wo"] is not found.inputs["wq"]
    found.save(tmp_path / "saved")
    again = load_statistics(tmp_path / "saved", model)
    assert again.inputs["wq"] is again.inputs["wk"] is again.inputs["wv"]
    assert again.inputs["wo"] is not again.inputs["wq"]


def test_other_columns_of_one_input_are_not_shared():
    model = built(
        "a = Conv (x, w)  b = Conv <pads = [1, 1]> (x, v)  y = Concat <axis = 2> (a, b)",
        "(float[N,2,6] x) => (float[N,2,L] y)",
        {"w": floats(2, 2, 3), "v": floats(2, 2, 3)},
    )
    found = observed(model, [{"x": floats(1, 2, 6)}]).inputs
    assert found["w"].fit.count == 4
    assert found["v"].fit.count == 6


def test_a_weight_with_two_uses_sees_the_columns_of_both(models):
    small = models["tied"]
    model = load_model(small.proto)
    (layer,) = (each for each in layers(model) if each.name == "twice")
    assert len(layer.uses) == 2
    found = observed(model, small.feeds)
    statistics = found.of(layer)
    seen = 0 if statistics.moments is None else statistics.moments.count
    seen += 0 if statistics.held_out is None else statistics.held_out.columns.shape[1]
    assert seen == 2 * sum(feed["ids"].size for feed in small.feeds)


def test_independent_layers_are_on_one_level():
    model = built(FAN, "(float[N,4] x) => (float[N,4] y)", FAN_WEIGHTS)
    assert levels_of(model) == [["wq", "wk", "wv"], ["wo"]]


def test_layers_in_branches_come_after_what_they_read(models):
    assert levels_of(load_model(models["if_bodies"].proto)) == [["shared"], ["w", "w"]]
    model = built(
        """
        a = MatMul (x, first)
        b = If (flag) <
            then_branch = one () => (float[N,4] c) {
                d = MatMul (a, second)  c = MatMul (d, third) },
            else_branch = two () => (float[N,4] e) { e = MatMul (x, other) }
        >
        y = MatMul (b, last)
        """,
        "(float[N,4] x, bool flag) => (float[N,4] y)",
        {name: floats(4, 4) for name in ("last", "third", "second", "first", "other")},
    )
    assert levels_of(model) == [["first", "other"], ["second"], ["third"], ["last"]]


def test_a_weight_of_several_layers_belongs_to_the_first():
    model = built(
        "a = MatMul (x, both)  b = MatMul (a, between)  y = MatMul (b, both)",
        "(float[N,4] x) => (float[N,4] y)",
        {"both": floats(4, 4), "between": floats(4, 4)},
    )
    assert levels_of(model) == [["both"], ["between"]]
    assert recurring(model) == ["both"]
    # Without what is between, the second use still depends on the first.
    assert recurring(model, {"both"}) == ["both"]


def test_what_multiplies_hidden_states_recurs(models):
    model = load_model(models["recurrent"].proto)
    assert recurring(model) == ["lstm_r", "gru_r"]


def test_a_weight_of_two_layers_side_by_side_does_not_recur():
    model = built(
        "a = MatMul (x, both)  b = MatMul (z, both)  y = Add (a, b)",
        "(float[N,4] x, float[N,4] z) => (float[N,4] y)",
        {"both": floats(4, 4)},
    )
    assert recurring(model) == []


def test_only_the_layers_given_make_levels():
    model = built(
        "a = MatMul (x, one)  b = MatMul (a, two)  y = MatMul (b, three)",
        "(float[N,4] x) => (float[N,4] y)",
        {name: floats(4, 4) for name in ("one", "two", "three")},
    )
    assert levels_of(model, {"one", "three"}) == [["one"], ["three"]]


STACK = (
    "y = MatMul (x, w)",
    "(float[2,N,3] x) => (float[2,N,4] y)",
    {"w": floats(2, 3, 4)},
)


def test_why_layers_of_small_models_cannot_be_observed(models):
    def reasons(name):
        found = layers(load_model(models[name].proto))
        return {layer.name: f"its layer {layer.reason}" for layer in found if layer.reason}

    assert reasons("tied") == {"embedding": "its layer only looks rows up"}
    assert reasons("loop_body") == dict.fromkeys(
        ("outside", "inside"), "its layer is inside a Loop body"
    )
    assert reasons("local_functions") == dict.fromkeys(
        ("w1", "w2", "w"), "its layer is inside a local function"
    )
    nothing = "its layer multiplies it with nothing that is observed ({})"
    assert reasons("mlp") == {
        "b1": nothing.format("Gemm"),
        "b2": nothing.format("Add"),
        "b3": nothing.format("Gemm"),
    }
    assert reasons("recurrent")["lstm_b"] == nothing.format("LSTM")
    assert reasons("if_bodies") == {}


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        (STACK, "multiplies with a stack of matrices"),
        (
            (
                "t = Transpose (w)  y = MatMul (x, t)",
                "(float[N,3] x) => (float[N,4] y)",
                {"w": floats(4, 3)},
            ),
            "reads it through other operators; simplify may fold them",
        ),
        (
            (
                "a = MatMul (x, w)  y = Gemm <transB = 1> (a, w)",
                "(float[N,4] x) => (float[N,4] y)",
                {"w": floats(4, 4)},
            ),
            "reads it in several ways",
        ),
        (
            (
                "y, last = GRU <hidden_size = 2, layout = 1> (x, v, w)",
                "(float[N,L,3] x) => (float[N,L,1,2] y, float[N,1,2] last)",
                {"v": floats(1, 6, 3), "w": floats(1, 6, 2)},
            ),
            "has its samples first (layout = 1)",
        ),
        (
            (
                "c = MatMul (v, w)  y = Add (x, c)",
                "(float[3,4] x) => (float[3,4] y)",
                {"v": floats(3, 5), "w": floats(5, 4)},
            ),
            "multiplies it with a constant",
        ),
    ],
)
def test_why_a_layer_cannot_be_observed(model, reason):
    assert layer_of(built(*model), "w").reason == reason


def test_weights_of_one_name_keep_apart(models):
    small = models["if_bodies"]
    model = load_model(small.proto)
    found = layers(model)
    assert [layer.name for layer in found] == ["shared", "w", "w"]
    assert len({layer.key for layer in found}) == 3
    statistics = observed(model, small.feeds)
    of_then, of_else = (statistics.of(layer) for layer in found[1:])
    rows = [3 * sum(feed["flag"] == taken for feed in small.feeds) for taken in (True, False)]
    assert of_then is not of_else
    for each, count in zip((of_then, of_else), rows, strict=True):
        held = 0 if each.held_out is None else each.held_out.columns.shape[1]
        assert held + (0 if each.moments is None else each.moments.count) == count


@settings(max_examples=40, deadline=None)
@given(
    groups=st.integers(1, 3),
    outputs=st.integers(1, 4),
    inputs=st.integers(1, 4),
    taps=st.integers(1, 3),
    seed=st.integers(0, 9),
)
def test_a_form_there_and_back(groups, outputs, inputs, taps, seed):
    shape = (groups * outputs, inputs, taps)
    form = Form(
        shape,
        (groups, outputs, inputs, taps),
        (0, 2, 3, 1),
        (groups, inputs * taps, outputs),
    )
    values = np.random.default_rng(seed).standard_normal(shape)
    matrices = form.to_matrices(values)
    assert matrices.shape == form.matrices
    assert np.array_equal(form.to_tensor(matrices), values)
    assert matrices[-1, -1, -1] == values[-1, -1, -1]
    assert matrices[0, -1, 0] == values[0, -1, -1]


def test_forms_of_all_layers_there_and_back(models):
    operators = set()
    for small in models.values():
        if small.is_external:
            continue
        for layer in layers(load_model(small.proto)):
            if layer.uses:
                values = layer.weight.load()
                back = layer.form.to_tensor(layer.form.to_matrices(values))
                assert np.array_equal(back, values)
                operators |= set(layer.weight.op_types)
    assert {"Conv", "ConvTranspose", "Gemm", "MatMul"} | (RECURRENCES - {"RNN"}) <= operators


def test_branches_that_read_one_tensor_see_it_where_they_are_taken():
    model = built(
        """
        a = Tanh (x)
        b = MatMul (a, outside)
        c = If (flag) <
            then_branch = one () => (float[N,4] d) { d = MatMul (a, yes) },
            else_branch = two () => (float[N,4] e) { e = MatMul (a, no) }
        >
        y = Add (b, c)
        """,
        "(float[N,3] x, bool flag) => (float[N,4] y)",
        {"outside": floats(3, 4), "yes": floats(3, 4), "no": floats(3, 4)},
    )
    feeds = [{"x": floats(2, 3), "flag": np.array(place < 3)} for place in range(10)]
    found = observed(model, feeds)
    inputs = [np.tanh(feed["x"].astype(np.float64)) for feed in feeds]
    assert_columns(found.inputs["outside"], np.concatenate(inputs)[None])
    assert_columns(found.inputs["yes"], np.concatenate(inputs[:3])[None])
    assert_columns(found.inputs["no"], np.concatenate(inputs[3:])[None])
    assert found.ranges["a"].most == pytest.approx(max(map(np.max, inputs)))
    assert found.ranges["a"].least == pytest.approx(min(map(np.min, inputs)))


def test_what_later_levels_read_of_earlier_ones():
    model = built(
        """
        a = MatMul (x, one)  b = Tanh (a)
        c = MatMul (b, two)  d = Add (c, b)
        y = MatMul (d, three)
        """,
        "(float[N,4] x) => (float[N,4] y)",
        {name: floats(4, 4) for name in ("one", "two", "three")},
    )
    order = Order(model, layers(model))
    found = [[each.name for each in order.frontier(level)] for level in range(3)]
    assert found == [[], ["b"], ["d"]]


def test_what_a_branch_reads_is_of_the_frontier():
    model = built(
        """
        a = MatMul (x, one)  b = Tanh (a)
        c = If (flag) <
            then_branch = one_ () => (float[N,4] d) { d = MatMul (b, two) },
            else_branch = other () => (float[N,4] e) { e = Relu (b) }
        >
        y = MatMul (c, three)
        """,
        "(float[N,4] x, bool flag) => (float[N,4] y)",
        {name: floats(4, 4) for name in ("one", "two", "three")},
    )
    order = Order(model, layers(model))
    found = [[each.name for each in order.frontier(level)] for level in range(3)]
    assert found == [[], ["b"], ["c"]]


def test_only_what_earlier_levels_add_is_made_up_for():
    def settled(body):
        weights = {name: floats(4, 4) for name in ("one", "two", "three") if f", {name})" in body}
        model = built(body, "(float[N,4] x) => (float[N,4] y)", weights)
        return [layer.name for layer in Order(model, layers(model)).settled()]

    assert settled("a = MatMul (x, one)  y = Add (a, x)") == ["one"]
    assert settled("a = MatMul (x, one)  b = MatMul (x, two)  y = Add (a, b)") == []
    body = "a = MatMul (x, one)  b = Tanh (a)  c = MatMul (b, two)  d = MatMul (x, three)"
    assert settled(f"{body}  y = Add (c, d)") == ["two"]
