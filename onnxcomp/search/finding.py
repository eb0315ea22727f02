"""The search for a pipeline, or for all that are worth it."""

from __future__ import annotations

from contextlib import suppress
from time import monotonic
from typing import TYPE_CHECKING, Any

from onnxcomp.api import Limits, Settings
from onnxcomp.search.aims import GOALS, Aim
from onnxcomp.search.climbing import Climber
from onnxcomp.search.preparing import prepared, space_of
from onnxcomp.search.results import Found, Front, best_of, front_of
from onnxcomp.search.trying import TimeIsUp, trying

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Executor

    from onnxcomp.report import Trial

    Told = Callable[[Trial], None]

SLACKS = (1.0, 0.3, 3.0)
"""What a front is searched at: the floor itself, a stricter one and a looser one."""

DEFAULT_AIM, DEFAULT_SETTINGS, NO_LIMITS = Aim(), Settings(), Limits()


def search_pipeline(
    model: Any,
    *,
    data: Any = None,
    aim: Aim = DEFAULT_AIM,
    settings: Settings = DEFAULT_SETTINGS,
    limits: Limits = NO_LIMITS,
    executor: Executor | None = None,
    told: Told = lambda _: None,
) -> Found:
    """Find the pipeline whose result is best of those that keep the floor.

    One sample of five is kept from the passes; outputs are compared on those. Passes see 64 of the
    others unless ``settings`` say otherwise. Without a floor in
    ``settings``, the metric, or the rows of the outputs that agree, may drop by 1 %. What was
    finished before the search ends, by time, by an interrupt or with the machine, is in the cache,
    and the next search of the same model, data and floor goes on from there.

    Args:
        model: As for `onnxcomp.compress`.
        data: Samples, likewise.
        aim: What is sought, and for how long.
        settings: How results are checked, and the floor.
        limits: What size and latency must hold.
        executor: Where candidates are tried; each starts a process of its own there. Threads of
            this process if not given. It must see the cache, the model, the data and the
            evaluator at the same paths.
        told: Told of each trial when it is finished.

    Raises:
        FloorError: Nothing that was found in the time is better than the original and keeps the
            floor.
        OnnxcompError: Something else is wrong; see `onnxcomp.errors`.
    """
    end = monotonic() + 60 * aim.minutes
    space = space_of(aim)
    task = prepared(model, data, aim, settings, limits)
    with trying(task, aim.jobs, executor, end, told) as one, suppress(TimeIsUp, KeyboardInterrupt):
        Climber(space, one.judge(space, aim, 1.0, end), aim.jobs).climb()
    return best_of(task, aim, one.trials)


def search_front(
    model: Any,
    *,
    data: Any = None,
    aim: Aim = DEFAULT_AIM,
    settings: Settings = DEFAULT_SETTINGS,
    limits: Limits = NO_LIMITS,
    executor: Executor | None = None,
    told: Told = lambda _: None,
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
    task = prepared(model, data, aim, settings, limits)
    with trying(task, aim.jobs, executor, end, told) as one, suppress(KeyboardInterrupt):
        for place, (own, space, slack) in enumerate(climbs):
            now = monotonic()
            deadline = now + (end - now) / (len(climbs) - place)
            with suppress(TimeIsUp):
                Climber(space, one.judge(space, own, slack, deadline), aim.jobs).climb()
    best = best_of(task, aim, one.trials)
    chosen = None if best.report.search is None else best.report.search.chosen
    return Front(best, front_of(task, one.trials, chosen))
