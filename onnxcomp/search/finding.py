"""The search for a pipeline, or for all that are worth it."""

from __future__ import annotations

from contextlib import suppress
from math import inf
from time import monotonic
from typing import TYPE_CHECKING, Any

from onnxcomp.api import Limits, Settings
from onnxcomp.search.aims import GOALS, Aim
from onnxcomp.search.climbing import Climber
from onnxcomp.search.floors import floor_in_words
from onnxcomp.search.preparing import first_pipelines, prepared, space_of
from onnxcomp.search.results import Found, Front, best_of, front_of
from onnxcomp.search.trying import Listener, TimeIsUp, trying

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Executor

    from onnxcomp.search.preparing import Task
    from onnxcomp.search.trying import Trying

SLACKS = (1.0, 0.3, 3.0)
"""What a front is searched at: the floor itself, a stricter one and a looser one."""

DEFAULT_AIM, DEFAULT_SETTINGS, NO_LIMITS, SILENT = Aim(), Settings(), Limits(), Listener()


def search_pipeline(
    model: Any,
    *,
    data: Any = None,
    aim: Aim = DEFAULT_AIM,
    settings: Settings = DEFAULT_SETTINGS,
    limits: Limits = NO_LIMITS,
    executor: Executor | None = None,
    listener: Listener = SILENT,
) -> Found:
    """Find the pipeline whose result is best of those that keep the floor.

    One sample of five is kept from the passes; outputs are compared on those. Passes see 64 of the
    others unless ``settings`` say otherwise. Without a floor in ``settings``, the metric may drop
    by 1 %; without a metric too, each output has a floor by what it holds
    (`onnxcomp.search.outputs`). Without data and without a metric only what is safe is tried:
    exact simplification, and weights in 8 bits. Those are tried first in any case, so that there
    soon is a result. What was finished before the search ends, by time, by an interrupt or with
    the machine, is in the cache, and the next search of the same model, data and floor goes on
    from there.

    Args:
        model: As for `onnxcomp.compress`.
        data: Samples, likewise.
        aim: What is sought, and for how long.
        settings: How results are checked, and the floor.
        limits: What size and latency must hold.
        executor: Where candidates are tried; each starts a process of its own there. Threads of
            this process if not given. It must see the cache, the model, the data and the
            evaluator at the same paths.
        listener: Told what is done.

    Raises:
        FloorError: Nothing that was found in the time is better than the original and keeps the
            floor.
        OnnxcompError: Something else is wrong; see `onnxcomp.errors`.
    """
    end = monotonic() + 60 * aim.minutes
    space = space_of(aim)
    listener.begun("running the original")
    task = prepared(model, data, aim, settings, limits)
    _tell(task, listener)

    def climb(one: Trying) -> None:
        Climber(space, one.judge(space, aim, 1.0, end), aim.jobs).climb()

    with trying(task, aim.jobs, executor, end=end, slack=1.0, listener=listener) as one:
        is_cut_short = _is_cut_short(one, aim, task, end, climb)
    return best_of(task, aim, one.trials, listener, is_timed=not is_cut_short)


def search_front(
    model: Any,
    *,
    data: Any = None,
    aim: Aim = DEFAULT_AIM,
    settings: Settings = DEFAULT_SETTINGS,
    limits: Limits = NO_LIMITS,
    executor: Executor | None = None,
    listener: Listener = SILENT,
) -> Front:
    """Find the pipelines of which none is better in bytes, latency and accuracy at once.

    Every goal is climbed to, at the floor, at a stricter and at a looser one; each climb gets its
    share of the time that is left. Otherwise as `search_pipeline`; the goal of ``aim`` says which
    result the report is about.

    Raises:
        FloorError: As there.
        OnnxcompError: As there.
    """
    end = monotonic() + 60 * aim.minutes
    aims = [aim.model_copy(update={"goal": goal}) for goal in GOALS]
    climbs = [(own, space_of(own), slack) for slack in SLACKS for own in aims]
    listener.begun("running the original")
    task = prepared(model, data, aim, settings, limits)
    _tell(task, listener)

    def climb(one: Trying) -> None:
        for place, (own, space, slack) in enumerate(climbs):
            now = monotonic()
            deadline = now + (end - now) / (len(climbs) - place)
            with suppress(TimeIsUp):
                Climber(space, one.judge(space, own, slack, deadline), aim.jobs).climb()

    with trying(task, aim.jobs, executor, end=end, slack=max(SLACKS), listener=listener) as one:
        is_cut_short = _is_cut_short(one, aim, task, end, climb)
    best = best_of(task, aim, one.trials, listener, is_timed=not is_cut_short)
    chosen = None if best.report.search is None else best.report.search.chosen
    return Front(best, front_of(task, one.trials, chosen))


def _tell(task: Task, listener: Listener) -> None:
    """Tell what results will be judged by, and what of them will not be."""
    if task.unchecked is not None:
        listener.noted(task.unchecked)
        return
    floor = floor_in_words(task.settings, task.limits, task.metric, task.floors)
    listener.noted(f"judged by: {floor}")
    if task.limited is not None:
        listener.noted(task.limited)


def _is_cut_short(
    one: Trying, aim: Aim, task: Task, end: float, climb: Callable[[Trying], None]
) -> bool:
    """Try what gives a first answer, then climb until the time is up; tell if somebody ended it.

    As long as there is nothing, the search may take twice its time. What needs data to be judged
    is not climbed to without.
    """
    latest = end + 60 * aim.minutes
    try:
        for passes in first_pipelines(aim, task):
            (trial,) = one.tried([passes], inf if not one.trials else latest, until=latest)
            if trial.status == "kept":
                break
        if task.unchecked is None:
            climb(one)
    except TimeIsUp:
        return False
    except KeyboardInterrupt:
        return True
    return False
