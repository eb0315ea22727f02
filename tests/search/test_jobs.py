"""Candidates in processes of their own."""

from pathlib import Path
from textwrap import dedent

import numpy as np
import pytest

from onnxcomp import Settings, available_passes
from onnxcomp.pipeline import recipe
from onnxcomp.runtime.evaluation import Score
from onnxcomp.search.jobs import Job, run_isolated
from onnxcomp.search.shelf import Shelf

PASSES = (available_passes()["cluster"](bits=4, min_elements=16),)

EVALUATOR = """
import os, signal, subprocess, tempfile, time
import numpy as np

FOLDER = os.path.dirname(__file__)

def dies(predict):
    os.kill(os.getpid(), signal.SIGKILL)

def hangs(predict):
    time.sleep(60)

def leaves(predict):
    os._exit(7)

def fails(predict):
    raise KeyError("nothing")

def crashes(predict):
    os.abort()

def has_no_room(predict):
    raise OSError(28, "No space left on device")

def has_no_memory(predict):
    raise MemoryError

def loses(predict):
    return np.repeat([1.0, 0.0], [8, 12])

def keeps(predict):
    return np.repeat([1.0, 0.0], 10)

def is_ended(predict):
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(60)

def leaves_things(predict):
    child = subprocess.Popen(["sleep", "60"], start_new_session=False)
    open(os.path.join(FOLDER, "child"), "w").write(str(child.pid))
    open(os.path.join(FOLDER, "scratch"), "w").write(tempfile.mkdtemp())
    os._exit(7)
"""


@pytest.fixture
def job(task, tmp_path):
    (tmp_path / "metric.py").write_text(dedent(EVALUATOR))
    (tmp_path / "running").mkdir()
    return lambda function, seconds=60.0: Job(
        model=task.model,
        score=None if function is None else Score(0.5, np.repeat([1.0, 0.0], 10)),
        data=task.data,
        recipe=recipe(PASSES),
        settings=Settings(
            evaluate=None if function is None else f"{tmp_path / 'metric.py'}:{function}",
            min_snr=5,
            max_drop=None if function is None else 0.05,
        ),
        floors=(),
        shelf=Shelf.at(tmp_path / "shelf").folder,
        running=tmp_path / "running",
        seconds=seconds,
        left=seconds,
        slack=1.0,
    )


def test_a_result(job, tmp_path):
    trial = run_isolated(job(None))
    assert (trial.status, trial.reason) == ("kept", "")
    assert Shelf(tmp_path / "shelf").trial(PASSES) == trial
    assert Shelf(tmp_path / "shelf").model(PASSES).stat().st_size == trial.bytes


def test_items_give_what_was_lost_an_interval(job):
    trial = run_isolated(job("loses"))
    assert (trial.status, trial.strain) == ("missed", pytest.approx(2.0))
    assert trial.reason.startswith(
        "the metric dropped by 0.1 (from 0.5 to 0.4), allowed is 0.05; "
    )
    assert trial.reason.endswith(", so that so few samples cannot tell")


def test_items_that_all_stay(job):
    trial = run_isolated(job("keeps"))
    assert (trial.status, trial.drop) == ("kept", 0.0)


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        ("leaves", "ended with exit code 7"),
        ("fails", "evaluator {metric} raised KeyError: 'nothing'"),
    ],
)
def test_a_candidate_that_fails_is_not_tried_again(job, tmp_path, function, reason):
    asked = job(function)
    trial = run_isolated(asked)
    reason = reason.format(metric=repr(asked.settings.evaluate))
    assert (trial.status, trial.reason, trial.bytes) == ("failed", reason, None)
    assert Shelf(tmp_path / "shelf").trial(PASSES).reason == reason


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        ("dies", "was killed by SIGKILL, out of memory perhaps"),
        ("is_ended", "was killed by SIGTERM"),
        ("crashes", "was killed by SIGABRT"),
        ("has_no_room", "evaluator {metric} raised OSError: [Errno 28] No space left on device"),
        ("has_no_memory", "evaluator {metric} raised MemoryError"),
    ],
)
def test_what_may_not_come_again_says_nothing_of_the_candidate(job, tmp_path, function, reason):
    asked = job(function)
    trial = run_isolated(asked)
    metric = repr(asked.settings.evaluate)
    assert (trial.status, trial.reason) == ("failed", reason.format(metric=metric))
    assert Shelf(tmp_path / "shelf").trial(PASSES) is None
    assert not [*tmp_path.rglob("core*")]


def test_a_result_that_cannot_be_written(job, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "sitecustomize.py").write_text(
        "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))"
    )
    trial = run_isolated(job(None))
    assert trial.status == "failed"
    assert trial.reason.endswith("File too large")
    assert Shelf(tmp_path / "shelf").trial(PASSES) is None


def test_nothing_of_a_process_is_left(job, tmp_path):
    run_isolated(job("leaves_things"))
    assert not Path((tmp_path / "scratch").read_text()).exists()
    pid = int((tmp_path / "child").read_text())
    status = Path(f"/proc/{pid}/stat")
    # The child is gone, or waits to be reaped by whoever adopted it.
    assert not status.exists() or status.read_text().rpartition(")")[2].split()[0] == "Z"


def test_a_process_that_hangs(job, tmp_path):
    trial = run_isolated(job("hangs", seconds=10.0))
    assert (trial.status, trial.reason) == ("failed", "took longer than the search had left")
    assert trial.seconds < 30
    assert Shelf(tmp_path / "shelf").trial(PASSES) is None
    assert Shelf(tmp_path / "shelf").model(PASSES) is not None
