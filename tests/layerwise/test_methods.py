"""A method of somebody else's gets all that the built-in ones have."""

import json
import re
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path

import numpy as np
import onnx
import pytest

from onnxcomp import Context, Stage, available_passes, compress, load_model
from onnxcomp.errors import OptionError
from onnxcomp.graph import model_bytes, weights
from onnxcomp.layerwise import Method, WeightPass
from onnxcomp.passes import Cluster, Factorize, Prune, PruneChannels
from onnxcomp.pipeline import registry
from onnxcomp.runtime import open_session, read_samples
from onnxcomp.stores import Codebook, store_codes
from onnxcomp.testing import check_pass, suite
from onnxcomp.testing.small_model import parsed


def contributed():
    """Return the pass that CONTRIBUTING shows."""
    text = Path(__file__).parents[2].joinpath("CONTRIBUTING.md").read_text()
    (code,) = [
        each for each in re.findall(r"```python\n(.*?)```", text, re.DOTALL) if "Signs" in each
    ]
    assert len(code.splitlines()) < 40
    names = {"__name__": __name__, "np": np, "Method": Method, "WeightPass": WeightPass}
    names |= {"Stage": Stage, "Codebook": Codebook, "store_codes": store_codes}
    exec(code, names)  # noqa: S102 - our own page
    return names["Sign"]


Sign = contributed()
ALL = (Sign,)


@pytest.fixture
def installed(monkeypatch):
    """Install the pass in this process; other processes do not have it."""
    own = EntryPoint("sign", f"{__name__}:ALL", registry.ENTRY_POINTS)
    points = [*entry_points(group=registry.ENTRY_POINTS), own]
    monkeypatch.setattr(registry, "entry_points", lambda *, group: points)  # noqa: ARG005
    here = tuple(check for check in suite.CHECKS if check.__name__ != "check_threads")
    monkeypatch.setattr(suite, "CHECKS", here)
    available_passes.cache_clear()
    yield
    monkeypatch.undo()
    available_passes.cache_clear()


@pytest.mark.usefixtures("installed")
def test_it_conforms():
    check_pass(Sign())


def samples_of(small, count=12):
    random = np.random.default_rng(0)
    feeds = [
        {
            name: random.standard_normal(array.shape).astype(array.dtype)
            for name, array in each.items()
        }
        for each in list(small.feeds)[:1] * count
    ]
    return read_samples(feeds, open_session(small.source(None)).inputs)


def test_it_keeps_within_a_size(untimed):
    random = np.random.default_rng(0)
    weights = {name: random.standard_normal((96, 96)).astype(np.float32) for name in "vw"}
    text = """<ir_version: 8, opset_import: ["" : 17]>
        two (float[N,96] x) => (float[N,96] y) { a = MatMul (x, v)  y = MatMul (a, w) }"""
    for ratio in (5, 7, 9):
        made = compress(parsed(text, weights), [Sign(size_ratio=ratio)], settings=untimed)
        assert made.report.size_ratio >= ratio
        if ratio == 7:
            assert len({each.reason for each in made.report.steps[0].changed}) > 1


def test_what_cannot_be_is_left_alone(models, monkeypatch):
    small = models["mlp"]
    method = type(Sign().method([], Context()))
    plain, store = method.plain, method.store
    model = load_model(small.proto)
    (broken,) = [each for each in model.constants if each.name == "w3"]
    broken.values = np.full(broken.shape, np.nan, np.float32)
    calls = []

    def refuse(self, layer, values, choice):
        if layer.name == "w2":
            raise ValueError("is not to my taste")
        return plain(self, layer, values, choice)

    def once(self, layer, made, values, present):
        calls.append(layer.name)
        if calls.count(layer.name) > 1:
            raise ValueError("it is too late")
        return store(self, layer, made, values, present)

    monkeypatch.setattr(method, "plain", refuse)
    monkeypatch.setattr(method, "store", once)
    verdicts = Sign().apply(model, Context(samples=samples_of(small)))
    reasons = {each.name: (each.verdict, each.reason) for each in verdicts}
    assert reasons["w3"] == ("skipped", "holds NaN or infinity")
    assert reasons["w2"] == ("skipped", "is not to my taste")
    late = "1 signs; without data, since with it: it is too late"
    assert reasons["w1"] == ("changed", late)
    monkeypatch.setattr(method, "store", store)
    Sign(max_bytes=12000).apply(load_model(small.proto), Context(samples=samples_of(small)))
    monkeypatch.setattr(method, "choices", ())
    with pytest.raises(OptionError, match=r"^sign: there are no choices for a size"):
        Sign(size_ratio=2).apply(load_model(small.proto), Context())


def test_it_is_repaired(models):
    small = models["mlp"]
    found = {}
    for samples in (None, samples_of(small)):
        model = load_model(small.proto)
        verdicts = Sign().apply(model, Context(samples=samples))
        found[samples is None] = [each.reason for each in verdicts if each.verdict == "changed"]
    assert set(found[True]) == {"1 signs"}
    assert all(", as they are" in each or ", refitted" in each for each in found[False])


def test_only_the_weights_of_some_operators(models):
    model = load_model(models["mlp"].proto)
    of_products = {each.name for each in weights(model) if "MatMul" in each.op_types}
    verdicts = Cluster(op_type=["MatMul"]).apply(model, Context())
    assert {each.name for each in verdicts if each.verdict == "changed"} == of_products
    reasons = {each.reason for each in verdicts if "Gemm" in each.op_types}
    assert "was not selected by op_type" in reasons


@pytest.mark.parametrize(
    ("strengths", "measured"),
    [
        ([Cluster(size_ratio=each) for each in (2, 2.2, 2.4)], 1),
        ([Prune(sparsity=each) for each in (0.3, 0.5, 0.7)], 1),
        ([Prune(size_ratio=each) for each in (1.2, 1.5, 2)], 1),
        ([Factorize(size_ratio=each, allow="size") for each in (1.1, 1.2, 1.3)], 1),
        # A first plan, and a second that depends on it.
        ([PruneChannels(macs=each) for each in (0.5, 0.6, 0.7)], 4),
    ],
    ids=lambda each: each[0].name if isinstance(each, list) else "",
)
def test_what_weights_mean_is_measured_once(models, strengths, measured):
    small = models["mlp"]
    known, samples = {}, samples_of(small)

    def recall(name, measure):
        if name not in known:
            known[name] = json.loads(json.dumps(measure()))
        return known[name]

    for one in strengths:
        one.apply(load_model(small.proto), Context(samples=samples, recall=recall))
    assert len(known) <= measured
    assert known


def test_a_prune_of_some_size(models, untimed):
    made = compress(models["mlp"].proto, [Prune(size_ratio=1.5)], settings=untimed)
    assert made.report.size_ratio >= 1.5
    with pytest.raises(OptionError) as caught:
        Prune(size_ratio=2, pattern="2:4")
    message = "prune: size_ratio and max_bytes choose for each tensor; leave out pattern"
    assert str(caught.value) == message


def test_the_same_bytes_however_much_is_held_at_once(models, monkeypatch):
    small = models["mlp"]
    samples, found = samples_of(small), set()
    for most in (1, 1 << 27):
        monkeypatch.setattr("onnxcomp.layerwise.portions.MOST_BYTES", most)
        model = load_model(small.proto)
        Cluster(bits=2).apply(model, Context(samples=samples))
        found.add(model_bytes(model))
    assert len(found) == 1
    onnx.checker.check_model(found.pop())
