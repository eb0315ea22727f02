"""Candidates tried by an executor until the time is up."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from math import inf
from pathlib import Path
from tempfile import TemporaryDirectory
from time import monotonic
from typing import TYPE_CHECKING

from onnxcomp.pipeline import recipe
from onnxcomp.search.climbing import Standing
from onnxcomp.search.floors import strain
from onnxcomp.search.jobs import Job, failed, run_isolated

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from concurrent.futures import Executor, Future

    from onnxcomp.pipeline import Pass
    from onnxcomp.report import Trial
    from onnxcomp.search.aims import Aim
    from onnxcomp.search.preparing import Task
    from onnxcomp.search.spaces import Point, Space

    Told = Callable[[Trial], None]


class TimeIsUp(Exception):  # noqa: N818 - not an error
    """There is no time for another candidate."""


class Trying:
    """Tries candidates, each only once.

    Args:
        task: What the search works on.
        pool: Where candidates are tried.
        running: A folder that is there as long as the search is.
        end: When whatever still runs is ended, on the monotonic clock.
        told: Told of each trial when it is finished.

    Attributes:
        trials: What was tried, with the pipelines, in that order.
    """

    def __init__(self, task: Task, pool: Executor, running: Path, end: float, told: Told) -> None:
        self._task, self._pool, self._running = task, pool, running
        self._end, self._told = end, told
        self.trials: dict[tuple[Pass, ...], Trial] = {}

    def judge(
        self, space: Space, aim: Aim, slack: float, deadline: float
    ) -> Callable[[Sequence[Point]], list[Standing]]:
        """Return what tells a climber how points stand.

        Args:
            space: What points are points of.
            aim: What is to be as small as can be.
            slack: By how much more than the floor a candidate may lose.
            deadline: When nothing more is begun, on the monotonic clock.
        """

        def stand(points: Sequence[Point]) -> list[Standing]:
            trials = self._tried([space.pipeline(point) for point in points], deadline)
            return [self._standing(trial, aim, slack) for trial in trials]

        return stand

    def _standing(self, trial: Trial, aim: Aim, slack: float) -> Standing:
        if trial.status == "failed":
            return Standing(inf, inf)
        lost = strain(trial, self._task.settings, self._task.metric) / slack
        objective = aim.objective(trial, self._task.bytes) if lost <= 1 else inf
        return Standing(objective, lost)

    def _tried(self, pipelines: Sequence[tuple[Pass, ...]], deadline: float) -> list[Trial]:
        known = [self.trials.get(each) or self._task.shelf.trial(each) for each in pipelines]
        if deadline <= monotonic() and None in known:
            raise TimeIsUp
        jobs = [self._job(each) for each in pipelines]
        futures = [
            None if trial is not None else self._pool.submit(run_isolated, job)
            for trial, job in zip(known, jobs, strict=True)
        ]
        for passes, trial, job, future in zip(pipelines, known, jobs, futures, strict=True):
            found = trial if trial is not None else _result(future, job)
            if passes not in self.trials:
                self.trials[passes] = found.model_copy(update={"number": len(self.trials)})
                self._told(self.trials[passes])
        return [self.trials[each] for each in pipelines]

    def _job(self, passes: Sequence[Pass]) -> Job:
        task = self._task
        return Job(
            model=task.model,
            score=task.score,
            data=task.data,
            recipe=recipe(passes),
            settings=task.settings,
            shelf=task.shelf.folder,
            running=self._running,
            seconds=max(0.0, self._end - monotonic()),
        )


@contextmanager
def trying(
    task: Task, jobs: int, executor: Executor | None, end: float, told: Told
) -> Iterator[Trying]:
    """Yield what tries candidates; at the end, whatever still runs is ended.

    Args:
        task: What the search works on.
        jobs: Candidates at once, where no executor is given.
        executor: Where candidates are tried.
        end: When whatever still runs is ended, on the monotonic clock.
        told: Told of each trial when it is finished.
    """
    pool = ThreadPoolExecutor(jobs) if executor is None else executor
    with TemporaryDirectory(prefix="onnxcomp-") as folder:
        running = Path(folder, "running")
        running.mkdir()
        try:
            yield Trying(task, pool, running, end, told)
        finally:
            running.rmdir()
            if executor is None:
                pool.shutdown(cancel_futures=True)


def _result(future: Future[Trial] | None, job: Job) -> Trial:
    """Return what a candidate came to, or that where it was tried broke down."""
    started = monotonic()
    try:
        assert future is not None  # noqa: S101 - there is one for whatever is not known
        return future.result()
    except Exception as error:  # noqa: BLE001 - an executor of whatever kind
        return failed(job, f"the executor failed: {type(error).__name__}: {error}", started)
