"""A model that gives out other tensors."""

import numpy as np
import pytest

from onnxcomp import load_model
from onnxcomp.graph import expose, model_bytes, referring_bytes, why_hidden
from onnxcomp.runtime import open_session
from onnxcomp.testing.small_model import parsed

RANDOM = np.random.default_rng(3)
CHAIN = """<ir_version: 8, opset_import: ["" : 17]>
chain (float[N,4] x, float[N,4] z) => (float[N,4] y) {
    a = Tanh (x)
    b = Relu (a)
    c = Neg (z)
    y = Add (b, c)
}"""
NESTED = """<ir_version: 8, opset_import: ["" : 17]>
nested (float[N,4] x, bool outer, bool inner) => (float[N,4] y) {
    a = Tanh (x)
    y = If (outer) <
        then_branch = one () => (float[N,4] b) {
            b = If (inner) <
                then_branch = two () => (float[N,4] c) { d = Neg (a)  c = Relu (d) },
                else_branch = three () => (float[N,4] e) { e = Exp (a) }
            >
        },
        else_branch = four () => (float[N,4] f) { f = Sin (x) }
    >
}"""


def floats(*shape):
    return RANDOM.standard_normal(shape).astype(np.float32)


def tensor_of(model, name):
    """Return a tensor that a node computes, and the scope of the node."""
    (found,) = (
        (tensor, scope)
        for scope in model.scopes()
        for node in scope.nodes
        for tensor in node.outputs
        if tensor.name == name
    )
    return found


def seen(model, names):
    return {f"seen {name}": tensor_of(model, name) for name in names}


def run(model, feed):
    data, folder = referring_bytes(model)
    session = open_session(data, folder=folder)
    return session.run({port.name: feed[port.name] for port in session.inputs})


def test_tensors_of_the_main_graph():
    model = load_model(parsed(CHAIN, {}))
    x = floats(2, 4)
    exposed = expose(model, {"first": tensor_of(model, "a"), "second": tensor_of(model, "b")})
    found = run(exposed, {"x": x, "z": x})
    assert list(found) == ["first", "second"]
    assert found["first"] == pytest.approx(np.tanh(x))
    assert found["second"] == pytest.approx(np.maximum(np.tanh(x), 0))


def test_what_is_not_needed_is_left_out():
    model = load_model(parsed(CHAIN, {}))
    exposed = expose(model, {"only": tensor_of(model, "a")})
    assert [node.op for node in exposed.nodes] == ["Tanh", "Identity"]


def test_the_model_stays_as_it_is():
    for text in (CHAIN, NESTED):
        model = load_model(parsed(text, {}))
        before = model_bytes(model)
        for name in "abc":
            expose(model, {"only": tensor_of(model, name)})
        assert model_bytes(model) == before


def test_an_input_and_a_constant():
    text = CHAIN.replace("Neg (z)", "Mul (z, w)")
    weight = floats(4)
    model = load_model(parsed(text, {"w": weight}))
    feed = {"x": floats(2, 4), "z": floats(2, 4)}
    found = run(
        expose(model, {"in": (model.inputs[0], model), "held": (model.constants[0], model)}), feed
    )
    assert np.array_equal(found["in"], feed["x"])
    assert np.array_equal(found["held"], weight)


def test_shapes():
    model = load_model(parsed(NESTED, {}))
    wanted = seen(model, "ade")
    feed = {"x": floats(7, 4), "outer": np.array(object=True), "inner": np.array(object=False)}
    found = run(expose(model, wanted, "Shape"), feed)
    assert {name: shape.tolist() for name, shape in found.items()} == {
        "seen a": [7, 4],
        "seen d": [0],
        "seen e": [7, 4],
    }


@pytest.mark.parametrize("outer", [True, False])
@pytest.mark.parametrize("inner", [True, False])
def test_branches_inside_branches(outer, inner):
    model = load_model(parsed(NESTED, {}))
    x = floats(3, 4)
    feed = {"x": x, "outer": np.array(outer), "inner": np.array(inner)}
    found = run(expose(model, seen(model, "bcdef")), feed)
    expected = {
        "d": -np.tanh(x) if outer and inner else None,
        "c": np.maximum(-np.tanh(x), 0) if outer and inner else None,
        "e": np.exp(np.tanh(x)) if outer and not inner else None,
        "f": None if outer else np.sin(x),
    }
    expected["b"] = expected["c"] if inner else expected["e"]
    for name, wanted in expected.items():
        if wanted is None:
            assert found[f"seen {name}"].size == 0
        else:
            assert found[f"seen {name}"] == pytest.approx(wanted, rel=1e-5)


def test_a_tensor_from_outside_as_a_branch_sees_it():
    model = load_model(parsed(NESTED, {}))
    a, _ = tensor_of(model, "a")
    _, two = tensor_of(model, "d")
    exposed = expose(model, {"always": (a, model), "there": (a, two)})
    for inner in (True, False):
        feed = {"x": floats(3, 4), "outer": np.array(object=True), "inner": np.array(inner)}
        found = run(exposed, feed)
        assert found["always"] == pytest.approx(np.tanh(feed["x"]), rel=1e-5)
        assert found["there"].shape == ((3, 4) if inner else (0,))


def test_half_precision_in_a_branch():
    model = load_model(parsed(NESTED.replace("float[", "float16["), {}))
    feed = {
        "x": floats(3, 4).astype(np.float16),
        "outer": np.array(object=True),
        "inner": np.array(object=True),
    }
    found = run(expose(model, seen(model, "de")), feed)
    assert found["seen d"] == pytest.approx(-np.tanh(feed["x"]), rel=1e-2)
    assert (found["seen d"].shape, found["seen e"].shape) == ((3, 4), (0,))


def test_all_tensors_of_small_models(models, tmp_path):
    """What is given out of the main graph is what the whole model computes there."""
    for name in ("mlp", "convnet", "recurrent", "tied", "stored", "opset_9", "external_data"):
        small = models[name]
        model = load_model(small.source(tmp_path))
        wanted = {f"seen {each.name}": (each, model) for each in model.outputs}
        found = run(expose(model, wanted), small.feeds[0])
        plain = open_session(small.source(tmp_path)).run(small.feeds[0])
        assert list(found) == [f"seen {name}" for name in plain]
        for output, array in plain.items():
            assert found[f"seen {output}"] == pytest.approx(array, rel=1e-4, abs=1e-5)


def test_weights_are_shared():
    model = load_model(parsed(CHAIN.replace("Neg (z)", "Mul (z, w)"), {"w": floats(4)}))
    exposed = expose(model, {"only": tensor_of(model, "c")})
    assert exposed.constants[0].held is model.constants[0].held


def test_what_is_hidden(models):
    model = load_model(models["if_bodies"].proto)
    assert [why_hidden(model, scope) for scope in model.all_scopes()] == [None, None, None]
    model = load_model(models["loop_body"].proto)
    reasons = [why_hidden(model, scope) for scope in model.all_scopes()]
    assert reasons == [None, "is inside a Loop body"]
    model = load_model(models["local_functions"].proto)
    reasons = [why_hidden(model, scope) for scope in model.all_scopes()]
    assert reasons == [None, "is inside a local function", "is inside a local function"]


def test_an_if_inside_a_loop_is_hidden_too():
    text = """<ir_version: 8, opset_import: ["" : 17]>
    deep (float[N] x, int64 count, bool go) => (float[N] y) {
        y = Loop (count, go, x) <
            body = step (int64 i, bool before, float[N] s) => (bool after, float[N] t) {
                after = Identity (before)
                t = If (before) <
                    then_branch = one () => (float[N] a) { a = Neg (s) },
                    else_branch = two () => (float[N] b) { b = Exp (s) }
                >
            }
        >
    }"""
    model = load_model(parsed(text, {}))
    reasons = [why_hidden(model, scope) for scope in model.all_scopes()]
    assert reasons == [None, *["is inside a Loop body"] * 3]
