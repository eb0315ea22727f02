"""The search: candidates tried one after the other, until the time is up or nothing is better."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from math import inf
from pathlib import Path
from tempfile import TemporaryDirectory
from time import monotonic
from typing import TYPE_CHECKING, Any

from onnxcomp.api import Limits, Settings, compare
from onnxcomp.errors import FloorError
from onnxcomp.graph import load_model, save_model
from onnxcomp.pipeline import recipe
from onnxcomp.report import Report, Search, Trial, record_of_files
from onnxcomp.search.aims import Aim
from onnxcomp.search.climbing import Climber, Standing
from onnxcomp.search.floors import floor_in_words, strain
from onnxcomp.search.jobs import Job, failed, run_isolated
from onnxcomp.search.preparing import Task, prepared

if TYPE_CHECKING:
    from onnxcomp.pipeline import Pass
    from onnxcomp.search.spaces import Point

Told = Callable[[Trial], None]
"""Told of each trial when it is finished."""


class _TimeIsUp(Exception):  # noqa: N818 - not an error
    """There is no time for another candidate."""


@dataclass(frozen=True, eq=False)
class Found:
    """The best result of a search.

    Args:
        path: Where its model is, in the cache.
        report: What it is, and what else was tried.
    """

    path: Path
    report: Report

    def save(self, path: str | Path) -> Report:
        """Write the model, all of it or nothing, and return the report with the file in it.

        Raises:
            ModelError: The folder cannot be written.
        """
        written = record_of_files(save_model(load_model(self.path), path))
        output = written.model_copy(update={"path": str(path)})
        return self.report.model_copy(update={"output": output})


def search(
    model: Any,
    *,
    data: Any = None,
    aim: Aim = Aim(),  # noqa: B008 - frozen
    settings: Settings = Settings(),  # noqa: B008
    limits: Limits = Limits(),  # noqa: B008
    executor: Executor | None = None,
    told: Told = lambda _: None,
) -> Found:
    """Find the pipeline whose result is best of those that keep the floor.

    One sample of five is kept from the passes; results are compared on those. Without a floor in
    ``settings``, the metric, or the rows of the outputs that agree, may drop by 1 %. What was
    finished before the search ends, by time, by interrupt or with the machine, is in the cache,
    and the next search of the same model, data and floor goes on from there.

    Args:
        model: As for `onnxcomp.compress`.
        data: Samples, likewise.
        aim: What is sought, and for how long.
        settings: How results are checked, and the floor.
        limits: What size and latency must hold.
        executor: Where candidates are tried; each starts a process of its own there. Threads of
            this process if not given. It must see the cache at the same path.
        told: Told of each trial when it is finished.

    Raises:
        FloorError: Nothing that was found in the time is better than the original and keeps the
            floor.
        OnnxcompError: Something else is wrong; see `onnxcomp.errors`.
    """
    task = prepared(model, data, aim, settings, limits)
    with ExitStack() as stack:
        running = Path(stack.enter_context(TemporaryDirectory(prefix="onnxcomp-")))
        pool = executor or stack.enter_context(ThreadPoolExecutor(aim.jobs))
        trying = _Trying(task, aim, pool, running, told)
        with suppress(_TimeIsUp, KeyboardInterrupt):
            Climber(task.space, trying.judge, aim.jobs).climb()
        running.rmdir()
    return _found(task, aim, trying.trials)


class _Trying:
    """Tries candidates until the time is up.

    Attributes:
        trials: What was tried, with the pipelines, in that order.
    """

    def __init__(self, task: Task, aim: Aim, pool: Executor, running: Path, told: Told) -> None:
        self._task, self._aim = task, aim
        self._pool, self._running, self._told = pool, running, told
        self._deadline = monotonic() + 60 * aim.minutes
        self._bytes = record_of_files([task.model, *load_model(task.model).data_paths]).bytes
        self.trials: list[tuple[tuple[Pass, ...], Trial]] = []

    def judge(self, points: Sequence[Point]) -> list[Standing]:
        """Try points at once, and tell what each came to."""
        pipelines = [self._task.space.pipeline(point) for point in points]
        known = [self._task.shelf.trial(each) for each in pipelines]
        left = self._deadline - monotonic()
        if left <= 0 and None in known:
            raise _TimeIsUp
        futures = [
            None if trial is not None else self._pool.submit(run_isolated, self._job(passes, left))
            for passes, trial in zip(pipelines, known, strict=True)
        ]
        standings = []
        for passes, trial, future in zip(pipelines, known, futures, strict=True):
            found = trial if future is None else _result(future, self._job(passes, left))
            assert found is not None  # noqa: S101 - either is known
            found = found.model_copy(update={"number": len(self.trials)})
            self.trials.append((passes, found))
            self._told(found)
            standings.append(self._standing(found))
        return standings

    def _job(self, passes: Sequence[Pass], seconds: float) -> Job:
        task = self._task
        return Job(
            model=task.model,
            metric=task.metric,
            data=task.data,
            recipe=recipe(passes),
            settings=task.settings,
            limits=task.limits,
            shelf=task.shelf.folder,
            running=self._running,
            seconds=seconds,
        )

    def _standing(self, trial: Trial) -> Standing:
        if trial.status == "failed":
            return Standing(inf, inf)
        return Standing(
            self._aim.objective(trial, self._bytes),
            strain(trial, self._task.settings, self._task.metric),
        )


def _result(future: Future[Trial], job: Job) -> Trial:
    """Return what a candidate came to, or that where it was tried broke down."""
    started = monotonic()
    try:
        return future.result()
    except Exception as error:  # noqa: BLE001 - an executor of whatever kind
        return failed(job, f"the executor failed: {type(error).__name__}: {error}", started)


def _found(task: Task, aim: Aim, trials: Sequence[tuple[tuple[Pass, ...], Trial]]) -> Found:
    """Check and time the best result, and report what was tried.

    Raises:
        FloorError: There is none that is better than the original.
    """
    size = record_of_files([task.model, *load_model(task.model).data_paths]).bytes
    ranked = sorted(trials, key=lambda each: aim.objective(each[1], size))
    floor = floor_in_words(task.settings, task.metric)
    made = Search(
        goal=aim.goal, floor=floor, trials=tuple(trial for _, trial in trials), chosen=None
    )
    if not ranked or aim.objective(ranked[0][1], size) >= 1:
        raise FloorError(
            f"nothing among {len(trials)} pipelines is better than the original and keeps the "
            f"floor ({floor}); give more --minutes, a larger --max-drop or another --target"
        )
    passes, best = ranked[0]
    path = task.shelf.model(passes)
    assert path is not None  # noqa: S101 - it was kept
    settings = task.settings.model_copy(update={"bench": True})
    report = compare(task.model, path, data=task.data, settings=settings)
    update = {
        "steps": task.shelf.steps(passes),
        "search": made.model_copy(update={"chosen": best.number}),
        "output": report.output.model_copy(update={"path": None}),
    }
    return Found(path, report.model_copy(update=update))
