"""Candidates tried by an executor until the time is up."""

from __future__ import annotations

import logging
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from math import inf
from pathlib import Path
from shutil import rmtree
from tempfile import mkdtemp
from time import monotonic, time
from typing import TYPE_CHECKING

from onnxcomp.pipeline import recipe
from onnxcomp.report import pipeline_in_words
from onnxcomp.search.climbing import Standing
from onnxcomp.search.jobs import Job, failed, run_isolated

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from concurrent.futures import Executor

    from onnxcomp.pipeline import Pass
    from onnxcomp.report import Trial
    from onnxcomp.search.aims import Aim
    from onnxcomp.search.preparing import Task
    from onnxcomp.search.spaces import Point, Space


LOG = logging.getLogger("onnxcomp.search")

RUNNING = ".running-"
"""How the name of a folder begins that is there as long as a search is."""

FORGOTTEN_SECONDS = 7 * 24 * 3600


@dataclass(frozen=True)
class Listener:
    """Who is told what a search does.

    Args:
        told: Each trial when it is finished.
        noted: What whoever uses the result must know, a line each: what it is judged by, and what
            was not checked.
        begun: What is being done from now on, in a few words.
    """

    told: Callable[[Trial], None] = lambda _: None
    noted: Callable[[str], None] = lambda _: None
    begun: Callable[[str], None] = lambda _: None


class TimeIsUp(Exception):  # noqa: N818 - not an error
    """There is no time for another candidate."""


class Trying:
    """Tries candidates, each only once.

    Args:
        task: What the search works on.
        pool: Where candidates are tried.
        running: A folder that is there as long as the search is.
        end: When whatever still runs is ended, on the monotonic clock.
        slack: By how much more than the floor a candidate may lose that is of use.
        listener: Told what is tried.

    Attributes:
        trials: What was tried, with the pipelines, in that order.
    """

    def __init__(
        self,
        task: Task,
        pool: Executor,
        running: Path,
        *,
        end: float,
        slack: float,
        listener: Listener,
    ) -> None:
        self._task, self._pool, self._running = task, pool, running
        self._end, self._slack, self._listener = end, slack, listener
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
            trials = self.tried([space.pipeline(point) for point in points], deadline)
            return [self._standing(trial, aim, slack) for trial in trials]

        return stand

    def _standing(self, trial: Trial, aim: Aim, slack: float) -> Standing:
        if trial.status == "failed":
            return Standing(inf, inf, trial.reach)
        lost = inf if trial.strain is None else trial.strain / slack
        if lost > 1:
            return Standing(inf, lost)
        return Standing(aim.objective(trial, self._task.bytes, self._task.limits), lost)

    def tried(
        self,
        pipelines: Sequence[tuple[Pass, ...]],
        deadline: float,
        until: float | None = None,
    ) -> list[Trial]:
        """Try pipelines, at once where the executor can, and return what each came to.

        Args:
            pipelines: Those that were tried before are not tried again.
            deadline: When nothing more is begun, on the monotonic clock.
            until: When those that still run are ended, likewise; at the end of the search if not
                given.

        Raises:
            TimeIsUp: It is, and one of them was not tried yet.
        """
        known = {each: self.trials.get(each) or self._task.shelf.trial(each) for each in pipelines}
        if deadline <= monotonic() and None in known.values():
            raise TimeIsUp
        unknown = [each for each, trial in known.items() if trial is None]
        waiting = {each: self._submitted(self._job(each, until or self._end)) for each in unknown}
        for passes, trial in known.items():
            if passes not in self.trials:
                self._listener.begun(f"trying {pipeline_in_words(recipe(passes))}")
                found = waiting[passes]() if trial is None else trial
                self.trials[passes] = found.model_copy(update={"number": len(self.trials)})
                LOG.info("%s: %s", found.status, pipeline_in_words(found.recipe))
                self._listener.told(self.trials[passes])
        return [self.trials[each] for each in pipelines]

    def _submitted(self, job: Job) -> Callable[[], Trial]:
        """Begin a candidate; return what waits for what it came to, or that its place broke."""
        started = monotonic()
        try:
            future = self._pool.submit(run_isolated, job)
        except RuntimeError as error:
            return partial(failed, job, _broken(error), started)

        def result() -> Trial:
            try:
                return future.result()
            except Exception as error:  # noqa: BLE001 - an executor of whatever kind
                return failed(job, _broken(error), started)

        return result

    def _job(self, passes: Sequence[Pass], until: float) -> Job:
        task, now = self._task, monotonic()
        return Job(
            model=task.model,
            score=task.score,
            data=task.data,
            recipe=recipe(passes),
            settings=task.settings,
            floors=task.floors,
            shelf=task.shelf.folder,
            running=self._running,
            seconds=max(0.0, until - now),
            left=max(0.0, self._end - now),
            slack=self._slack,
        )


@contextmanager
def trying(
    task: Task,
    jobs: int,
    executor: Executor | None,
    *,
    end: float,
    slack: float,
    listener: Listener,
) -> Iterator[Trying]:
    """Yield what tries candidates; at the end, whatever still runs is ended.

    Args:
        task: What the search works on.
        jobs: Candidates at once, where no executor is given.
        executor: Where candidates are tried.
        end: When whatever still runs is ended, on the monotonic clock.
        slack: By how much more than the floor a candidate may lose that is of use.
        listener: Told what is tried.
    """
    pool = ThreadPoolExecutor(jobs) if executor is None else executor
    _remove_forgotten(task.shelf.folder)
    # Beside what is finished, so that candidates on other machines see it too.
    running = Path(mkdtemp(dir=task.shelf.folder, prefix=RUNNING))
    try:
        yield Trying(task, pool, running, end=end, slack=slack, listener=listener)
    finally:
        rmtree(running)
        if executor is None:
            pool.shutdown(cancel_futures=True)


def _remove_forgotten(folder: Path) -> None:
    """Remove what searches left that were killed long ago."""
    for running in folder.glob(f"{RUNNING}*"):
        with suppress(OSError):
            if time() - running.stat().st_mtime > FORGOTTEN_SECONDS:
                rmtree(running)


def _broken(error: Exception) -> str:
    return f"the executor failed: {type(error).__name__}: {error}"
