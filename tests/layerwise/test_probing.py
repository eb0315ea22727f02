"""What outputs lose when one weight is changed: measured in one session, or model by model."""

import numpy as np
import pytest

from onnxcomp import load_model
from onnxcomp.graph import copy_model, model_bytes, weights
from onnxcomp.layerwise import SAMPLES, output_costs, output_errors
from onnxcomp.runtime import open_session, read_samples
from onnxcomp.testing.small_model import parsed

HEADER = '<ir_version: 8, opset_import: ["" : 17]>'
OTHERS = {
    "two outputs": (
        "(float[N,8] x) => (float[N,6] y, float[N,8] z) "
        "{ z = MatMul (x, w)  a = Tanh (z)  y = MatMul (a, v) }"
    ),
    "outputs that are not floats": (
        "(float[N,8] x) => (int64[N,1] best, float[N,6] y, bool[N,6] positive) "
        "{ h = MatMul (x, w)  y = MatMul (h, v)  zero = Constant <value = float {0}> ()"
        "  best = ArgMax <axis = 1> (y)  positive = Greater (y, zero) }"
    ),
    "a weight that is an output": (
        "(float[N,8] x) => (float[N,6] y, float[8,6] v) { h = MatMul (x, w)  y = MatMul (h, v) }"
    ),
}


def other(name):
    random = np.random.default_rng(0)
    values = {"w": random.standard_normal((8, 8)), "v": random.standard_normal((8, 6))}
    initializers = {key: each.astype(np.float32) for key, each in values.items()}
    text = f"{HEADER} some {OTHERS[name]}"
    feeds = [{"x": random.standard_normal((3, 8)).astype(np.float32)} for _ in range(5)]
    return parsed(text, initializers), feeds


def samples_of(model, feeds):
    return read_samples(list(feeds), open_session(model_bytes(model)).inputs)


def rounded(model):
    """Return every weight with values that are a little off."""
    return [
        [(each.tensor, (np.round(each.load() * 8) / 8).astype(each.dtype))]
        for each in weights(model)
    ]


def naive(model, place, values, feeds):
    """Return the error of one change by the definition: another model is made and run."""
    changed = copy_model(model)
    list(weights(changed))[place].tensor.values = values
    sessions = [open_session(model_bytes(each)) for each in (model, changed)]
    wanted, found = ([session.run(feed) for feed in feeds] for session in sessions)
    errors = []
    for name in wanted[0]:
        one, two = (
            np.concatenate([np.asarray(each[name], np.float64).ravel() for each in side])
            for side in (wanted, found)
        )
        if wanted[0][name].dtype.kind == "f" and np.var(one) > 0:
            errors.append(np.mean(np.square(one - two)) / np.var(one))
    return np.mean(errors)


def assert_as_naive(proto, feeds):
    model = load_model(proto)
    changes = rounded(model)
    before = model_bytes(model)
    found = output_errors(model, changes, samples_of(model, feeds))
    assert model_bytes(model) == before
    expected = [naive(model, place, each[0][1], feeds) for place, each in enumerate(changes)]
    assert len(found) == len(list(weights(model)))
    assert min(expected) > 1e-8
    np.testing.assert_allclose(found, expected, rtol=2e-3)


@pytest.mark.parametrize(
    "name",
    [
        "mlp",
        "convnet",
        "if_bodies",
        "recurrent",
        "tied",
        "float16",
        "loop_body",
        "local_functions",
    ],
)
def test_as_measured_one_by_one(models, name):
    assert_as_naive(models[name].proto, models[name].feeds)


@pytest.mark.parametrize("name", OTHERS)
def test_any_outputs(name):
    assert_as_naive(*other(name))


@pytest.mark.parametrize("name", ["loop_body", "local_functions", "classical", "constant_nodes"])
def test_wherever_the_weights_and_whatever_the_outputs(models, name):
    small = models[name]
    model = load_model(small.proto)
    found = output_errors(model, rounded(model), samples_of(model, small.feeds))
    assert np.isfinite(found).all()


def test_nothing_changed_is_nothing_lost(models):
    model = load_model(models["if_bodies"].proto)
    changes = [[(each.tensor, each.load())] for each in weights(model)]
    assert output_errors(model, changes, samples_of(model, models["if_bodies"].feeds)) == [0.0] * 3


def test_nothing_to_change(models):
    model = load_model(models["mlp"].proto)
    assert output_errors(model, [], samples_of(model, models["mlp"].feeds)) == []


def test_only_the_change_of_a_branch_that_is_taken_counts(models):
    small = models["if_bodies"]
    model = load_model(small.proto)
    feeds = [{**feed, "flag": np.array(object=False)} for feed in small.feeds]
    shared, of_then, of_else = output_errors(model, rounded(model), samples_of(model, feeds))
    assert min(shared, of_else) > 0
    assert of_then == 0


def test_the_most_sensitive_weight_has_the_largest_error():
    body = "{ a = MatMul (x, w)  b = MatMul (x, v)  c = Mul (b, many)  y = Add (a, c) }"
    random = np.random.default_rng(0)
    w, v = random.standard_normal((2, 8, 8)).astype(np.float32)
    proto = parsed(
        f"{HEADER} two (float[N,8] x) => (float[N,8] y) {body}",
        {"w": w, "v": v, "many": np.array(30, np.float32)},
    )
    model = load_model(proto)
    feeds = [{"x": random.standard_normal((3, 8)).astype(np.float32)} for _ in range(4)]
    found = output_errors(model, rounded(model)[:2], samples_of(model, feeds))
    assert found[1] > 200 * found[0]


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    "more",
    [
        "steady = ConstantOfShape (three)",
        "shape = Shape (x)  steady = ConstantOfShape (shape)",
        "n = IsNaN (x)  p = NonZero (n)  steady = Cast <to = 1> (p)",
        "zero = Sub (x, x)  steady = Log (zero)",
        "zero = Sub (x, x)  steady = Div (zero, zero)",
    ],
    ids=["constant", "zeros", "empty", "infinite", "undefined"],
)
def test_outputs_that_tell_nothing_do_not_count(more):
    random = np.random.default_rng(0)
    w = random.standard_normal((8, 8)).astype(np.float32)
    feeds = [{"x": random.standard_normal((3, 8)).astype(np.float32)} for _ in range(4)]
    errors = []
    for outputs, rest in (("float[N,8] y", ""), ("float[N,8] y, float[A,B] steady", more)):
        text = f"{HEADER} one (float[N,8] x) => ({outputs}) {{ y = MatMul (x, w)  {rest} }}"
        if "three" in rest:
            text = text.replace("float[A,B] steady", "float[A] steady")
        proto = parsed(text, {"w": w} | ({"three": np.array([3])} if "three" in rest else {}))
        model = load_model(proto)
        changes = [each for each in rounded(model) if each[0][0].name == "w"]
        errors += output_errors(model, changes, samples_of(model, feeds))
    assert errors[0] > 0
    assert errors[1] == pytest.approx(errors[0], rel=1e-6)


@pytest.mark.filterwarnings("error")
def test_masked_elements_do_not_hide_the_others():
    random = np.random.default_rng(0)
    w = random.standard_normal((8, 8)).astype(np.float32)
    mask = np.where(np.arange(8) < 3, -np.inf, 0).astype(np.float32)
    body = "{ a = MatMul (x, w)  y = Add (a, mask) }"
    text = f"{HEADER} masked (float[N,8] x) => (float[N,8] y) {body}"
    model = load_model(parsed(text, {"w": w, "mask": mask}))
    feeds = [{"x": random.standard_normal((3, 8)).astype(np.float32)} for _ in range(4)]
    (change,) = [each for each in rounded(model) if each[0][0].name == "w"]
    (found,) = output_errors(model, [change], samples_of(model, feeds))
    x = np.concatenate([feed["x"] for feed in feeds]).astype(np.float64)
    wanted, given = ((x @ each)[:, 3:] for each in (w, change[0][1]))
    assert found == pytest.approx(np.square(wanted - given).mean() / np.var(wanted), rel=1e-3)


def test_no_output_holds_floats():
    body = "{ h = MatMul (x, w)  best = ArgMax <axis = 1> (h) }"
    random = np.random.default_rng(0)
    w = random.standard_normal((8, 8)).astype(np.float32)
    proto = parsed(f"{HEADER} one (float[N,8] x) => (int64[N,1] best) {body}", {"w": w})
    model = load_model(proto)
    feeds = [{"x": random.standard_normal((3, 8)).astype(np.float32)}]
    assert output_errors(model, rounded(model), samples_of(model, feeds)) == [0.0]


def test_the_first_few_samples_are_run(models):
    small = models["mlp"]
    model = load_model(small.proto)
    random = np.random.default_rng(0)
    feeds = [{"x": random.standard_normal((4, 32)).astype(np.float32)} for _ in range(SAMPLES)]
    more = [{"x": 100 * feed["x"]} for feed in feeds]
    told = []
    found = [
        output_errors(model, rounded(model), samples_of(model, each), told.append)
        for each in (feeds, feeds + more)
    ]
    assert found[0] == found[1]
    assert told == pytest.approx([(place + 1) / 6 for place in range(6)] * 2)


@pytest.mark.parametrize(("rows", "count"), [(600, 2), (60, 6), (8, SAMPLES)])
def test_as_many_samples_as_their_rows_need(rows, count):
    random = np.random.default_rng(0)
    w = random.standard_normal((32, 8)).astype(np.float32)
    text = f"{HEADER} one (float[N,32] x) => (float[N,8] y) {{ y = MatMul (x, w) }}"
    model = load_model(parsed(text, {"w": w}))
    draw = [random.standard_normal((rows, 32)).astype(np.float32) for _ in range(SAMPLES)]
    feeds = [{"x": each} for each in draw]
    known = output_errors(model, rounded(model), samples_of(model, feeds))
    for place, matters in ((count - 1, True), (count, False)):
        if place < len(feeds):
            other = [*feeds]
            other[place] = {"x": 100 * feeds[place]["x"]}
            found = output_errors(model, rounded(model), samples_of(model, other))
            assert (found != known) == matters


def test_an_element_that_is_no_longer_finite_is_missed():
    w = np.eye(8, dtype=np.float32)
    proto = parsed(
        f"{HEADER} one (float[N,8] x) => (float[N,8] y) {{ a = MatMul (x, w)  y = Log (a) }}",
        {"w": w},
    )
    model = load_model(proto)
    x = np.random.default_rng(0).uniform(2, 9, (4, 8)).astype(np.float32)
    changes = [[(each.tensor, each.load() * np.float32(0))] for each in weights(model)]
    (found,) = output_errors(model, changes, samples_of(model, [{"x": x}]))
    wanted = np.log(x.astype(np.float64))
    assert found == pytest.approx(np.square(wanted).mean() / np.var(wanted), rel=1e-4)


def test_what_errors_mean_is_interpolated_between_probes():
    errors = [
        [0.0, 0.01, 0.1, 1.0, np.inf],
        [0.0, 0.02, 0.2, 2.0, 4.0],
        [0.0, 0.01, 0.1, 1.0, 2.0],
    ]
    probed = [[0.01, 1.0], [0.02, 2.0], [0.01, 1.0]]
    losses = [[0.02, 8.0], [0.04, 16.0], [0.0, 0.0]]
    costs = output_costs(errors, probed, losses)
    # Factors of 2 and 8, and the root of both half-way; as much for a layer that nothing shows.
    expected = [
        [0.0, 0.02, 0.4, 8.0, np.inf],
        [0.0, 0.04, 0.8, 16.0, 32.0],
        [0.0, 0.02, 0.4, 8.0, 16.0],
    ]
    np.testing.assert_allclose(costs, expected)
