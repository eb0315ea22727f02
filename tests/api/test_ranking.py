"""Which weight a pass should have left alone."""

import json
from math import inf
from typing import ClassVar

import numpy as np
import pytest

from onnxcomp import Pass, Stage, load_model, sensitivity
from onnxcomp.errors import DataError, ModelError, OptionError, PassError
from onnxcomp.graph import model_bytes
from onnxcomp.passes import Cluster, Expand
from onnxcomp.testing.small_model import parsed

CULPRIT = "layers[1].w*"
DATA = {"x": np.random.default_rng(1).standard_normal((60, 32), np.float32)}
ONE_BIT = Cluster(bits=1, granularity="tensor")


@pytest.fixture(scope="module")
def planted():
    """Three layers; weights of the first and the last are close to -1 or 1, so that a bit does."""
    text = """
    <ir_version: 8, opset_import: ["" : 17]>
    planted (float[N, 32] x) => (float[N, 32] y, int64[N] best) {
        a = MatMul(x, first)
        b = MatMul(a, middle)
        y = MatMul(b, last)
        best = ArgMax <axis = 1, keepdims = 0> (y)
    }
    """
    random = np.random.default_rng(0)
    first, middle, last = random.standard_normal((3, 32, 32), np.float32)
    noise = 0.01 * random.standard_normal((2, 32, 32), np.float32)
    weights = {"first": np.sign(first) + noise[0], CULPRIT: middle, "last": np.sign(last)}
    weights["last"] += noise[1]
    proto = parsed(text, weights)
    proto.graph.node[1].input[1] = CULPRIT
    return proto


@pytest.fixture
def small(models):
    return models["dynamic_batch"]


def test_the_culprit_is_found(planted):
    found = sensitivity(planted, ONE_BIT, data=DATA)
    assert [each.rank for each in found.weights] == [1, 2, 3]
    worst, *others = found.weights
    assert worst.name == CULPRIT
    assert worst.snr_db < 12
    assert all(each.snr_db > 30 for each in others)
    assert others[0].squared_error > others[1].squared_error
    assert (worst.op_types, worst.shape, worst.elements) == (("MatMul",), (32, 32), 1024)
    assert worst.share == pytest.approx(1 / 3)
    assert worst.bytes_saved == worst.bytes_before - worst.bytes_after
    assert 1000 < worst.bytes_saved < worst.bytes_before == 4096
    assert worst.reason.startswith("2 clusters; ")
    assert worst.weight_error > 10 * max(each.weight_error for each in others)


def test_the_worst_float_output_counts(planted):
    worst = sensitivity(planted, ONE_BIT, data=DATA).weights[0]
    y, best = worst.outputs
    assert (y.name, best.name) == ("y", "best")
    assert best.squared_error > 0
    assert (worst.snr_db, worst.squared_error) == (y.snr_db, y.squared_error)
    assert worst.squared_error == pytest.approx(10 ** (-worst.snr_db / 10))


def test_errors_of_independent_weights_add_up(planted):
    found = sensitivity(planted, ONE_BIT, data=DATA)
    errors = [each.squared_error for each in found.weights]
    assert found.sum_of_errors == pytest.approx(sum(errors))
    assert found.together.squared_error == pytest.approx(found.sum_of_errors, rel=0.5)
    # Weights together share a table that each alone pays for.
    assert found.together.bytes_saved > sum(each.bytes_saved for each in found.weights)


def test_the_same_call_gives_the_same_ranking(planted):
    first, second = (sensitivity(planted, ONE_BIT, data=DATA) for _ in range(2))
    assert first == second
    assert first.to_dict() == json.loads(second.to_json())


def test_the_model_is_not_changed(planted):
    model = load_model(planted)
    before = model_bytes(model)
    sensitivity(model, ONE_BIT, data=DATA)
    assert model_bytes(model) == before


def test_selection_and_options_of_the_pass_are_kept(planted):
    chosen = Cluster(bits=2, exclude=("first",))
    found = sensitivity(planted, chosen, data=DATA)
    assert {each.name for each in found.weights} == {CULPRIT, "last"}
    assert found.options["exclude"] == ["first"]
    assert all(each.reason.startswith("4 clusters, ") for each in found.weights)


def test_errors_are_measured_on_held_out_samples(planted):
    counts = [
        sensitivity(planted, ONE_BIT, data=DATA, samples=samples).samples
        for samples in (None, 20, 1)
    ]
    assert 6 <= counts[0] <= 18
    assert 1 <= counts[1] <= 8
    assert counts[2] == 1


def test_external_data(models, tmp_path):
    small = models["external_data"]
    path = small.source(tmp_path)
    before = {each.name: each.read_bytes() for each in tmp_path.iterdir()}
    found = sensitivity(path, Cluster(bits=2), data=list(small.feeds))
    assert {each.name for each in found.weights} == {"w1", "w2", "w3"}
    assert found.source == str(path)
    assert {each.name: each.read_bytes() for each in tmp_path.iterdir()} == before


def test_a_pass_that_changes_nothing_in_the_outputs(models):
    stored = models["stored"]
    found = sensitivity(stored.proto, Expand(), data=list(stored.feeds))
    assert {each.squared_error for each in found.weights} == {0.0}
    assert {each.snr_db for each in found.weights} == {inf}
    assert found.to_dict()["weights"][0]["snr_db"] is None
    assert all(each.bytes_saved < 0 for each in found.weights)


@pytest.mark.parametrize("kind", ["nan", "invalid"])
def test_results_that_cannot_be_used_are_the_worst(small, fake, kind):
    found = sensitivity(small.proto, fake(kind=kind, exclude=("w2",)), data=list(small.feeds))
    assert [each.name for each in found.weights] == ["w1", "w3"]
    assert {each.squared_error for each in found.weights} == {inf}
    assert found.to_dict()["sum_of_errors"] is None
    if kind == "invalid":
        assert found.weights[0].failure.startswith("cannot load the result on cpu: ")
        assert "\n" not in found.together.failure
    else:
        assert [each.failure for each in found.weights] == [None, None]


class Watching(Pass):
    """Cluster, and remember what there was to calibrate on."""

    name: ClassVar[str] = "watching"
    stage: ClassVar[Stage] = Stage.CODE
    seen: ClassVar[list] = []

    needs_samples: bool = False

    def apply(self, model, context):
        self.seen.append((context.samples, context.statistics))
        if self.needs_samples and context.samples is None:
            raise OptionError("watching needs samples")
        return Cluster(include=self.include).apply(model, context)


@pytest.mark.parametrize("needs_samples", [False, True])
def test_the_model_is_observed_once(small, monkeypatch, needs_samples):
    monkeypatch.setattr(Watching, "seen", [])
    sensitivity(small.proto, Watching(needs_samples=needs_samples), data=list(small.feeds))
    samples, statistics = zip(*Watching.seen, strict=True)
    assert len({id(each) for each in statistics}) == 1
    assert statistics[0] is not None
    given = [each is not None for each in samples]
    assert given == ([False, *[True] * 4] if needs_samples else [False] * 4)


def test_progress_is_told(small):
    told = []
    sensitivity(
        small.proto, Cluster(), data=list(small.feeds), progress=lambda *each: told.append(each)
    )
    assert list(dict(told)) == ["observing", "cluster", "ranking"]
    assert [share for what, share in told if what == "ranking"] == pytest.approx([1 / 3, 2 / 3, 1])
    assert dict(told)["cluster"] == 1


def test_a_pass_that_changes_no_weight(small):
    tiny = Cluster(min_elements=10**6)
    with pytest.raises(OptionError) as raised:
        sensitivity(small.proto, tiny, data=list(small.feeds))
    assert str(raised.value) == (
        "cluster changes no weight of the model ('w2' is tiny (1920 elements)); "
        "choose another pass or options"
    )


def test_a_model_without_weights(models):
    bare = models["no_weights"]
    with pytest.raises(
        OptionError, match=r"^cluster changes no weight of the model \(it has none"
    ):
        sensitivity(bare.proto, Cluster(), data=list(bare.feeds))


def test_a_pass_that_cannot_change_one_weight_alone(small):
    with pytest.raises(PassError, match=r"^cluster cannot change 'w1' alone: cluster: a file of "):
        sensitivity(small.proto, Cluster(size_ratio=2.0), data=list(small.feeds))


def test_a_pass_that_raises(small, fake):
    with pytest.raises(PassError, match=r"^pass 'fake' failed: ZeroDivisionError: two lines$"):
        sensitivity(small.proto, fake(kind="raise"), data=list(small.feeds))


def test_no_output_holds_floats():
    text = """
    <ir_version: 8, opset_import: ["" : 17]>
    labels (float[N, 32] x) => (int64[N, 1] label) {
        y = MatMul(x, w)
        label = ArgMax <axis = 1> (y)
    }
    """
    proto = parsed(text, {"w": np.eye(32, dtype=np.float32)})
    with pytest.raises(ModelError) as raised:
        sensitivity(proto, Cluster(), data=DATA)
    assert str(raised.value) == (
        "no output of the model holds floats (label: int64), so no error can be told; "
        "make the tensor that they come from an output too"
    )


def test_data_of_another_model(small):
    with pytest.raises(DataError, match=r"^data: 'z' is not an input of the model"):
        sensitivity(small.proto, Cluster(), data={"z": DATA["x"]})


def test_a_weight_that_is_not_worth_it_alone(models):
    half = models["float16"]
    last = sensitivity(half.proto, Cluster(), data=list(half.feeds)).weights[-1]
    assert last.name == "w3"
    assert last.reason.startswith("would not be smaller (")
    assert (last.bytes_saved, last.squared_error, last.weight_error) == (0, 0.0, None)
