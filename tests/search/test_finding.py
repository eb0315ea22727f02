"""Whole searches, candidates tried in this process."""

import json

import numpy as np
import pytest

from onnxcomp import Limits, Settings, compress
from onnxcomp.api import recipe_of
from onnxcomp.errors import FloorError, OnnxcompError, OptionError
from onnxcomp.pipeline import parse_recipe, read_recipe
from onnxcomp.search import Aim, search_front, search_pipeline

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


def test_the_front(task, aim, here):
    front = search_front(task.model, data=task.data, aim=aim, settings=SNR, executor=here)
    sizes = [trial.bytes for trial, _ in front.trials]
    assert sizes == sorted(sizes)
    assert len(sizes) > 1
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
    hidden = Settings(evaluate=lambda _: 1.0)
    with pytest.raises(OptionError, match="is a function that no other process can find"):
        search_pipeline(task.model, data=task.data, aim=aim, settings=hidden, executor=here)


def test_a_report_of_a_search_is_plain_data(found):
    data = json.loads(found.report.to_json())
    assert data["search"]["chosen"] == found.report.search.chosen
    assert [step["pass"] for step in data["steps"]] == ["prune"]
