"""A small network with samples enough to hold some out, and an executor without processes."""

from concurrent.futures import Executor, Future
from dataclasses import dataclass
from pathlib import Path
from time import monotonic

import numpy as np
import pytest

from onnxcomp.errors import OnnxcompError
from onnxcomp.intervals import Interval
from onnxcomp.pipeline import parse_recipe
from onnxcomp.search.jobs import attempt, failed
from onnxcomp.search.shelf import Shelf

RECIPE = """
[[passes]]
pass = "prune"
criterion = "magnitude"
scope = "tensor"
sequential = false
min_elements = 16
"""


@dataclass
class Task:
    """What a search is given."""

    model: Path
    data: Path
    target: Path
    cache: Path


class Here(Executor):
    """Tries candidates in this process, and counts them."""

    def __init__(self):
        self.tried = 0

    def submit(self, _, job):
        self.tried += 1
        try:
            trial = attempt(job)
        except OnnxcompError as error:
            trial = failed(job, str(error), monotonic())
        shelf, passes = Shelf(job.shelf), parse_recipe(job.recipe)
        shelf.note(passes, trial)
        future = Future()
        future.set_result(shelf.trial(passes))
        return future


@pytest.fixture(scope="package")
def here():
    """Nothing is timed, as noise must not decide in a test, and few candidates are tried."""
    same = Interval(median=1.0, low=1.0, high=1.0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("onnxcomp.search.jobs.time_ratio", lambda *_, **__: same)
        patch.setattr("onnxcomp.search.climbing.TRIES", 4)
        patch.setattr("onnxcomp.search.climbing.MOVES", ())
        yield Here()


@pytest.fixture(scope="package")
def task(tmp_path_factory, models):
    folder = tmp_path_factory.mktemp("search")
    model, data, target = folder / "model.onnx", folder / "x.npz", folder / "passes.toml"
    model.write_bytes(models["dynamic_batch"].proto.SerializeToString())
    np.savez(data, x=np.random.default_rng(0).standard_normal((40, 32)).astype(np.float32))
    target.write_text(RECIPE)
    return Task(model, data, target, folder / "cache")
