"""Walks that start where the last one ended give what walks from the inputs give."""

import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from onnxcomp import Context, load_model
from onnxcomp.graph import copy_model, model_bytes, weights
from onnxcomp.layerwise import repair_layers
from onnxcomp.passes import Cluster
from onnxcomp.runtime import open_session, read_samples
from onnxcomp.statistics import Order, layers, relay
from onnxcomp.testing.small_model import parsed

RESIDUAL = """<ir_version: 8, opset_import: ["" : 17]>
residual (float[N,24] x) => (float[N,24] y) {
    a = MatMul (x, w)  r = Add (a, x)  g = Tanh (r)
    b = MatMul (g, v)  s = Add (b, r)  h = Tanh (s)
    c = MatMul (h, u)  y = Add (c, r)
}"""


@pytest.fixture
def temporary(tmp_path, monkeypatch):
    """A folder that is the only place for temporary files."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


@pytest.fixture(scope="module")
def residual():
    random = np.random.default_rng(0)
    values = {name: random.standard_normal((24, 24)) / 4 for name in "wvu"}
    return parsed(RESIDUAL, {name: each.astype(np.float32) for name, each in values.items()})


@pytest.fixture(scope="module")
def feeds():
    random = np.random.default_rng(1)
    mixing = random.standard_normal((24, 24)) * np.linspace(0.05, 3, 24)[:, None] / 5
    drawn = [random.standard_normal((6, 24)) @ mixing for _ in range(16)]
    return [{"x": each.astype(np.float32)} for each in drawn]


def samples_of(model, feeds):
    return read_samples(list(feeds), open_session(model_bytes(model)).inputs)


def clustered(proto, feeds):
    """Return the decoded weights and the outputs of a model that was repaired in sequence."""
    model = load_model(proto)
    Cluster(bits=3).apply(model, Context(samples=samples_of(model, feeds)))
    session = open_session(model_bytes(model))
    outputs = [array for feed in feeds for array in session.run(feed).values()]
    return [each.load() for each in weights(model) if each.size > 24], outputs


def starts_of(proto, feeds, monkeypatch):
    """Return how many walks started further on, and what came of it."""
    further = []
    advance = relay.Relay.advance

    def counted(self, keeper):
        advance(self, keeper)
        further.append(self.starts is not None)

    monkeypatch.setattr(relay.Relay, "advance", counted)
    found = clustered(proto, feeds)
    monkeypatch.setattr(relay.Relay, "advance", advance)
    return sum(further), found


def assert_alike(found, expected):
    for mine, theirs in zip(found[0], expected[0], strict=True):
        # Codes on a border may differ, since ONNX Runtime fuses other nodes.
        assert np.mean(~np.isclose(mine, theirs, rtol=1e-3, atol=1e-4)) < 0.02
    for mine, theirs in zip(found[1], expected[1], strict=True):
        assert np.linalg.norm(mine - theirs) < 0.02 * np.linalg.norm(theirs)


@pytest.mark.parametrize("name", ["residual", "if_bodies"])
def test_the_same_from_the_start(request, models, feeds, monkeypatch, name):
    proto = request.getfixturevalue("residual") if name == "residual" else models[name].proto
    given = feeds
    if name == "if_bodies":
        random = np.random.default_rng(2)
        given = [
            {
                "x": random.standard_normal((3, 40)).astype(np.float32),
                "flag": np.array(bool(place % 2)),
            }
            for place in range(12)
        ]
    kept, with_files = starts_of(proto, given, monkeypatch)
    monkeypatch.setattr(relay, "MOST_BYTES", 0)
    none, without = starts_of(proto, given, monkeypatch)
    assert kept >= 1
    assert none == 0
    assert_alike(with_files, without)


def test_what_was_kept_is_not_read_again(residual, feeds):
    model = load_model(residual)
    samples, reads = samples_of(model, feeds), []

    def counted(most):
        for feed in samples.read(most):
            reads.append(len(feed))
            yield feed

    Cluster(bits=3).apply(model, Context(samples=replace(samples, read=counted)))
    # Before the first layer there is nothing to keep: two walks read all, for both models; and
    # each of the three looks at one sample for its sizes.
    assert len(reads) == 2 * 2 * len(feeds) + 3


def names(tensors):
    return {tensor.name for tensor in tensors}


def test_the_frontier_of_a_residual_graph(residual):
    model = load_model(residual)
    order = Order(model, [layer for layer in layers(model) if layer.uses])
    levels = order.levels()
    assert [[each.name for each in level] for level in levels.values()] == [["w"], ["v"], ["u"]]
    frontiers = {number: names(order.frontier(number)) for number in levels}
    # Inputs are fed anyhow; r goes around the second layer and the third.
    first, second, third = frontiers.values()
    assert first == set()
    assert second == {"g", "r"}
    assert third == {"h", "r"}
    for number in levels:
        assert len(order.frontier(number)) == len(frontiers[number])


def test_the_frontier_of_branches(models):
    model = load_model(models["if_bodies"].proto)
    order = Order(model, [layer for layer in layers(model) if layer.uses])
    frontiers = [names(order.frontier(number)) for number in order.levels()]
    assert frontiers[0] == set()
    assert frontiers[1] == {"z"}


def test_nothing_is_left_behind(residual, feeds, temporary):
    clustered(residual, feeds)
    assert list(temporary.iterdir()) == []


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
@pytest.mark.parametrize("calls", [1, 2, 3])
def test_nothing_is_left_behind_where_repair_raises(residual, feeds, temporary, error, calls):
    model = load_model(residual)
    seen, called = [], []

    def repair(*_):
        called.append(1)
        seen.append([path for path in temporary.rglob("*") if path.is_file()])
        if len(called) == calls:
            raise error

    with pytest.raises(error):
        repair_layers(
            model,
            copy_model(model),
            repair,
            context=Context(samples=samples_of(model, feeds)),
            sequential=True,
            concerns=lambda _: True,
        )
    assert len(called) == calls
    if calls > 1:
        assert seen[-1]
    assert list(temporary.iterdir()) == []


def test_only_the_last_round_is_on_the_disk(residual, feeds, temporary):
    model = load_model(residual)
    counts = []

    def repair(*_):
        counts.append(len({path.parent for path in temporary.rglob("*.npz")}))

    repair_layers(
        model,
        copy_model(model),
        repair,
        context=Context(samples=samples_of(model, feeds)),
        sequential=True,
        concerns=lambda _: True,
    )
    assert counts == [0, 1, 1]


def test_what_is_kept_comes_back(temporary):
    folder = Path(temporary)
    keeper = relay.Keeper(folder, 2, (None, None), [["a", "b", "text"]] * 2)
    random = np.random.default_rng(0)
    rounds = [
        [
            [random.standard_normal((2, place)), np.array(side == 1), np.array(["no"], object)]
            for side in range(2)
        ]
        for place in (3, 5)
    ]
    for sides in rounds:
        keeper.take(None, sides)
    for side in range(2):
        start = relay.Start(keeper.named(side), keeper.kinds[side], folder, side, ())
        assert list(start.tensors.values()) == ["a", "b"]
        for number, sides in enumerate(rounds):
            first, second = start.feed(number).values()
            assert np.array_equal(first, sides[side][0])
            assert np.array_equal(second, sides[side][1])
