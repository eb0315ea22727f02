"""Whole searches, candidates tried in this process."""

import json
import os
import shutil
from concurrent.futures import BrokenExecutor, Executor
from itertools import permutations
from pathlib import Path
from time import time
from types import FunctionType

import numpy as np
import onnx
import pytest

from onnxcomp import Limits, Settings, available_passes, compress, weights
from onnxcomp.api import recipe_of
from onnxcomp.errors import FloorError, OnnxcompError, OptionError
from onnxcomp.intervals import Interval
from onnxcomp.pipeline import parse_recipe, read_recipe
from onnxcomp.report import pipeline_in_words
from onnxcomp.report.sentences import what_was_done
from onnxcomp.search import Aim, Listener, preparing, search_front, search_pipeline, shelf

SNR = Settings(min_snr=14)


@pytest.fixture(scope="module")
def aim(task):
    return Aim(target=str(task.target), cache=str(task.cache), minutes=5)


@pytest.fixture(scope="module")
def found(task, aim, here):
    return search_pipeline(task.model, data=task.data, aim=aim, settings=SNR, executor=here)


def test_the_smallest_that_keeps_the_floor(task, found):
    trials = found.report.search.trials
    best = trials[found.report.search.chosen]
    assert found.report.size_ratio > 1
    assert found.report.worst_snr_db >= 14
    assert best.status == "kept"
    assert {trial.status for trial in trials} >= {"kept", "missed"}
    assert found.report.search.floor == "an SNR of at least 14 dB"
    report = found.save(task.cache / "small.onnx")
    assert report.output.bytes == best.bytes


def test_the_recipe_gives_the_same_bytes(task, found):
    found.save(task.cache / "found.onnx")
    settings = Settings(bench=False, hold_out=True, calibration=64)
    again = compress(
        task.model, parse_recipe(recipe_of(found.path)), data=task.data, settings=settings
    )
    assert again.to_bytes() == (task.cache / "found.onnx").read_bytes()


def test_a_second_search_tries_nothing_twice(task, aim, found, here):
    before = here.tried
    again = search_pipeline(task.model, data=task.data, aim=aim, settings=SNR, executor=here)
    assert here.tried == before
    assert again.path == found.path
    assert again.report.search == found.report.search


@pytest.mark.parametrize(
    ("count", "seconds", "fits"),
    [(11, 0.01, 11), (11, 0.5, 11), (11, 0.6, 6), (11, 1.0, 3), (11, 9.0, 2), (1, 9.0, 1)],
)
def test_results_are_compared_on_as_many_samples_as_there_is_time_for(count, seconds, fits):
    assert preparing.fitting(count, seconds, 15.0) == fits


def test_a_search_with_little_time_says_on_how_many_samples_it_compares(
    task, here, tmp_path, monkeypatch
):
    monkeypatch.setattr(preparing, "COMPARED_SHARE", 0.0)
    own = Aim(target=str(task.target), cache=str(tmp_path), minutes=5)
    noted: list[str] = []
    given = {"data": task.data, "aim": own, "executor": here}
    found = search_pipeline(
        task.model, settings=SNR, listener=Listener(noted=noted.append), **given
    )
    assert found.report.validation[0].samples == 2
    assert noted[1].startswith("outputs are compared on 2 of the 8 samples that there are for it")
    asked = SNR.model_copy(update={"compared": 5})
    again = search_pipeline(
        task.model, settings=asked, listener=Listener(noted=noted.append), **given
    )
    assert again.report.validation[0].samples == 5
    assert len(noted) == 3


def test_models_and_samples_in_memory(task, aim, here, models, found):
    x = np.load(task.data)["x"]
    again = search_pipeline(
        models["dynamic_batch"].proto, data={"x": x}, aim=aim, settings=SNR, executor=here
    )
    assert again.path.read_bytes() == found.path.read_bytes()


def test_nothing_worse_than_the_original(task, aim, here):
    strict = Settings(min_snr=200)
    with pytest.raises(FloorError, match="is better than the original and keeps the floor"):
        search_pipeline(task.model, data=task.data, aim=aim, settings=strict, executor=here)
    most = Limits(min_size_ratio=100)
    with pytest.raises(FloorError):
        search_pipeline(
            task.model, data=task.data, aim=aim, settings=SNR, limits=most, executor=here
        )


def test_a_search_that_finds_nothing_tells_what_it_tried(task, aim, here):
    strict = Settings(min_snr=200)
    with pytest.raises(FloorError) as missed:
        search_pipeline(task.model, data=task.data, aim=aim, settings=strict, executor=here)
    report = missed.value.compressed
    assert report.search.chosen is None
    assert "missed" in {each.status for each in report.search.trials}
    assert report.missed.startswith("nothing among ")


def test_a_result_that_is_gone_is_made_again(task, found, here, tmp_path):
    own = Aim(target=str(task.target), cache=str(tmp_path), minutes=5)
    given = {"data": task.data, "aim": own, "settings": SNR, "executor": here}
    first = search_pipeline(task.model, **given)
    for model in list(tmp_path.rglob("model.onnx")):
        shutil.rmtree(model.parent)
    again = search_pipeline(task.model, **given)
    assert first.report.output.sha256 == again.report.output.sha256 == found.report.output.sha256


def test_an_interrupt_while_the_result_is_timed(task, aim, here, found, monkeypatch):
    measure = shelf.compare

    def interrupted(*given, settings, **others):
        if settings.bench:
            raise KeyboardInterrupt
        return measure(*given, settings=settings, **others)

    monkeypatch.setattr(shelf, "compare", interrupted)
    again = search_pipeline(task.model, data=task.data, aim=aim, settings=SNR, executor=here)
    assert again.path == found.path
    assert again.report.benchmark == ()


def test_the_original_is_nobodys_result(task, tmp_path, here, monkeypatch):
    faster = Interval(median=0.99, low=0.98, high=1.0)
    monkeypatch.setattr("onnxcomp.search.jobs.time_ratio", lambda *_, **__: faster)
    (tmp_path / "nothing.toml").write_text('[[passes]]\npass = "expand"\n')
    own = Aim(goal="speed", target=str(tmp_path / "nothing.toml"), cache=str(tmp_path), minutes=5)
    with pytest.raises(FloorError, match="nothing among 2 pipelines is better"):
        search_pipeline(task.model, data=task.data, aim=own, settings=SNR, executor=here)


def test_a_floor_holds_without_validation(task, aim, here, found):
    lax = Settings(min_snr=14).model_copy(update={"validation": False})
    again = search_pipeline(task.model, data=task.data, aim=aim, settings=lax, executor=here)
    assert again.path.read_bytes() == found.path.read_bytes()


def test_a_batch_that_is_fixed(models, tmp_path, here):
    proto = onnx.ModelProto()
    proto.CopyFrom(models["dynamic_batch"].proto)
    for port in (*proto.graph.input, *proto.graph.output):
        port.type.tensor_type.shape.dim[0].dim_value = 16
    x = np.random.default_rng(0).standard_normal((160, 32)).astype(np.float32)
    (tmp_path / "passes.toml").write_text('[[passes]]\npass = "cluster"\nmin_elements = 16\n')
    own = Aim(target=str(tmp_path / "passes.toml"), cache=str(tmp_path), minutes=5)
    found = search_pipeline(proto, data={"x": x}, aim=own, settings=SNR, executor=here)
    assert found.report.validation[0].samples == 32


def test_a_reader_of_samples(models, task, aim, here):
    x = np.load(task.data)["x"]

    class Reader:
        def __init__(self):
            self.feeds = iter({"x": each[None]} for each in x)

        def get_next(self):
            return next(self.feeds, None)

    again = search_pipeline(
        models["dynamic_batch"].proto, data=Reader(), aim=aim, settings=SNR, executor=here
    )
    assert again.report.size_ratio > 1


class Breaking(Executor):
    """Takes one candidate, and then no more."""

    def __init__(self, one):
        self.left = [one]

    def submit(self, *given):
        if not self.left:
            raise BrokenExecutor("gone")
        return self.left.pop().submit(*given)


def test_an_executor_that_breaks(task, tmp_path, here):
    own = Aim(target=str(task.target), cache=str(tmp_path), minutes=5)
    with pytest.raises(FloorError) as missed:
        search_pipeline(task.model, data=task.data, aim=own, settings=SNR, executor=Breaking(here))
    first, *others = missed.value.compressed.search.trials
    assert first.status == "kept"
    assert {each.reason for each in others} == {"the executor failed: BrokenExecutor: gone"}


def test_what_a_killed_search_left_goes_after_a_week(task, aim, here, found):
    folder = found.path.parents[1]
    for name, age in (("old", 8), ("new", 6)):
        left = folder / f".running-{name}"
        left.mkdir()
        (left / "model.onnx").touch()
        os.utime(left, (time() - age * 86400,) * 2)
    search_pipeline(task.model, data=task.data, aim=aim, settings=SNR, executor=here)
    assert [each.name for each in folder.glob(".running-*")] == [".running-new"]
    shutil.rmtree(folder / ".running-new")


def test_a_cache_that_was_interrupted(task, models, here, tmp_path, monkeypatch):
    def copy_half(source, place, **_):
        Path(place, "model.onnx").write_bytes(Path(source, "model.onnx").read_bytes()[:100])
        raise KeyboardInterrupt

    own = Aim(target=str(task.target), cache=str(tmp_path), minutes=5)
    given = {"data": task.data, "aim": own, "settings": SNR, "executor": here}
    with monkeypatch.context() as patch:
        patch.setattr("onnxcomp.search.preparing.shutil.copytree", copy_half)
        with pytest.raises(KeyboardInterrupt):
            search_pipeline(models["dynamic_batch"].proto, **given)
    assert search_pipeline(models["dynamic_batch"].proto, **given).report.size_ratio > 1


def dominates(one, other):
    pairs = [(each.bytes, each.strain, each.latency_ratio) for each in (one, other)]
    return all(first <= second for first, second in zip(*pairs, strict=True))


def test_the_front(task, aim, here):
    front = search_front(task.model, data=task.data, aim=aim, settings=SNR, executor=here)
    sizes = [trial.bytes for trial, _ in front.trials]
    assert sizes == sorted(sizes)
    assert len(sizes) > 1
    members = [trial for trial, _ in front.trials]
    assert not any(dominates(*pair) for pair in permutations(members, 2))
    assert front.best.report.search.front == tuple(each.number for each in members)
    written = front.save(task.cache / "front")
    for (trial, path), model in zip(front.trials, written, strict=True):
        assert model.read_bytes() == path.read_bytes()
        assert read_recipe(model.with_suffix(".toml")) == parse_recipe(recipe_of(model))
        assert model.stem == f"{trial.number:03}"


def test_labels(task, aim, here, tmp_path):
    labels = tmp_path / "labels.npy"
    np.save(labels, np.zeros(40, np.int64))
    own = aim.model_copy(update={"labels": str(labels)})
    found = search_pipeline(task.model, data=task.data, aim=own, settings=SNR, executor=here)
    assert found.report.metric is not None
    assert 0 <= found.report.metric.result <= 1
    assert found.report.metric.items == 8
    np.save(labels, np.zeros(3, np.int64))
    with pytest.raises(OnnxcompError, match="3 labels for 40 samples; give one each"):
        search_pipeline(task.model, data=task.data, aim=own, settings=SNR, executor=here)


def test_what_does_not_fit_together(task, aim, here):
    both = aim.model_copy(update={"labels": "labels.npy"})
    metric = Settings(evaluate=str)
    with pytest.raises(OptionError, match="labels and evaluate are two metrics; give one"):
        search_pipeline(task.model, data=task.data, aim=both, settings=metric, executor=here)
    with pytest.raises(OptionError, match="labels needs data"):
        search_pipeline(task.model, aim=both, executor=here)
    function = FunctionType((lambda _: 1.0).__code__, {"__name__": "__main__"}, "metric")
    own = Settings(evaluate=function)
    with pytest.raises(OptionError, match="is a function that no other process can find"):
        search_pipeline(task.model, data=task.data, aim=aim, settings=own, executor=here)
    hidden = Settings(evaluate=lambda _: 1.0)
    with pytest.raises(OptionError, match="is a function that no other process can find"):
        search_pipeline(task.model, data=task.data, aim=aim, settings=hidden, executor=here)


SAFE = ["simplify", "quantize(mode=weights, calibrate=0)"]


def test_the_first_answer_comes_whatever_the_time(task, here, tmp_path):
    aim = Aim(cache=str(tmp_path), minutes=1e-6)
    said = []
    listener = Listener(noted=said.append)
    found = search_pipeline(task.model, data=task.data, aim=aim, executor=here, listener=listener)
    (trial,) = found.report.search.trials
    assert pipeline_in_words(trial.recipe) == ", ".join(SAFE)
    assert found.report.size_ratio > 2
    assert found.report.unchecked is None
    assert said[0] == f"judged by: {found.report.search.floor}"
    assert found.report.search.floor.startswith("at least 0.99 of the rows of 'y' agree, with")


def test_what_is_only_rounded_and_loses_too_much_is_repaired(task, here, tmp_path):
    aim, strict = Aim(cache=str(tmp_path), minutes=0.05), Settings(min_snr=200)
    with pytest.raises(FloorError) as caught:
        search_pipeline(task.model, data=task.data, aim=aim, settings=strict, executor=here)
    trials = caught.value.compressed.search.trials
    assert [pipeline_in_words(each.recipe) for each in trials[:3]] == [
        ", ".join(SAFE),
        "simplify, quantize(mode=weights, calibrate=8)",
        "simplify",
    ]
    assert trials[0].snr_db < trials[1].snr_db < 200
    assert [each.latency_ratio for each in trials[:2]] == [None, None]


def test_without_data_only_what_is_safe_is_applied(task, here, tmp_path):
    aim = Aim(cache=str(tmp_path), minutes=5)
    said = []
    found = search_pipeline(
        task.model, aim=aim, executor=here, listener=Listener(noted=said.append)
    )
    (trial,) = found.report.search.trials
    assert pipeline_in_words(trial.recipe) == ", ".join(SAFE)
    assert said[-1] == found.report.unchecked
    assert said[-1].startswith("accuracy was not checked: without --data or --evaluate nothing")
    assert f"Mind that {said[-1]}." in what_was_done(found.report)
    with pytest.raises(OptionError, match="target = 'edge' needs data: accuracy was not checked"):
        search_pipeline(task.model, aim=Aim(target="edge"), executor=here)


def test_a_metric_needs_no_data(task, here, tmp_path):
    (tmp_path / "metric.py").write_text("def good(predict):\n    return 1.0\n")
    settings = Settings(evaluate=f"{tmp_path / 'metric.py'}:good")
    aim = Aim(target=str(task.target), cache=str(tmp_path), minutes=5)
    found = search_pipeline(task.model, aim=aim, settings=settings, executor=here)
    assert found.report.unchecked is None
    assert found.report.search.floor == "a metric of at least 0.99, the original's is 1"


def test_a_broken_first_pass_is_undone_and_not_the_pipeline(task, here, tmp_path, monkeypatch):
    simplify = available_passes()["simplify"]
    apply = simplify.apply

    def breaks(self, model, context):
        verdicts = apply(self, model, context)
        weight = next(weights(model)).tensor
        weight.values = np.full_like(weight.values, np.nan)
        return [each.model_copy(update={"verdict": "changed"}) for each in verdicts]

    monkeypatch.setattr(simplify, "apply", breaks)
    aim = Aim(cache=str(tmp_path), minutes=1e-6)
    found = search_pipeline(task.model, data=task.data, aim=aim, executor=here)
    assert [step.status for step in found.report.steps] == ["rolled_back", "applied"]
    assert found.report.search.trials[0].reason.startswith("simplify was undone: ")


def test_a_report_of_a_search_is_plain_data(found):
    data = json.loads(found.report.to_json())
    assert data["search"]["chosen"] == found.report.search.chosen
    assert [step["pass"] for step in data["steps"]] == ["prune"]
