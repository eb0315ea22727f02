"""What a search found: the best result, and those of which none is better in everything."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING

from onnxcomp.api import compare, doubt_of, missed_floor, recipe_of
from onnxcomp.errors import FloorError
from onnxcomp.graph import load_model, save_model
from onnxcomp.graph.saving import replacing
from onnxcomp.pipeline import recipe_toml
from onnxcomp.report import Report, Search, record_of_files
from onnxcomp.search.floors import floor_in_words
from onnxcomp.search.shelf import make_folder

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from onnxcomp.pipeline import Pass
    from onnxcomp.report import Trial
    from onnxcomp.search.aims import Aim
    from onnxcomp.search.preparing import Task
    from onnxcomp.search.trying import Listener

    Trials = Mapping[tuple[Pass, ...], Trial]

SAME_LATENCY = 0.02
"""Difference of two latency ratios that is noise."""

TIMED_SHARE, TIMED_SECONDS = 0.1, 5.0
"""What the result may be timed for in the end: a share of the search, and so long in any case."""


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


@dataclass(frozen=True, eq=False)
class Front:
    """The results of which none is better in bytes, latency and accuracy at once.

    Args:
        best: The one that the goal asks for.
        trials: The front, the smallest first, each with its model in the cache.
    """

    best: Found
    trials: tuple[tuple[Trial, Path], ...]

    def save(self, folder: Path) -> list[Path]:
        """Write the models, each with the recipe that made it, and return where they are.

        Files are named after the trials' numbers. The folder is made if it is not there.

        Raises:
            ModelError: The folder cannot be made or written.
        """
        make_folder(folder)
        written = []
        for trial, path in self.trials:
            model = folder / f"{trial.number:03}.onnx"
            save_model(load_model(path), model)
            with replacing(model.with_suffix(".toml")) as file:
                file.write(recipe_toml(recipe_of(path)).encode())
            written.append(model)
        return written


def best_of(task: Task, aim: Aim, trials: Trials, listener: Listener, *, is_timed: bool) -> Found:
    """Check and time the best result, and report what was tried.

    Args:
        task: What the search worked on.
        aim: What was sought.
        trials: What was tried.
        listener: Told what is done.
        is_timed: Whether the result is timed again; whoever ends a search wants the file.

    Raises:
        FloorError: There is none that is better than the original; ``compressed`` is the report.
    """
    results = dict(_results(task, trials))
    ranked = {
        passes: aim.objective(trials[passes], task.bytes, task.limits)
        for passes in results
        if trials[passes].status == "kept"
    }
    best = min(ranked, key=lambda each: ranked[each], default=())
    chosen = trials[best].number if ranked and ranked[best] < 1 else None
    search = Search(
        goal=aim.goal,
        floor=floor_in_words(task.settings, task.limits, task.metric, task.floors),
        trials=tuple(trials.values()),
        chosen=chosen,
        front=tuple(trial.number for trial, _ in front_of(task, trials, chosen)),
    )
    if chosen is None:
        raise _nothing_found(task, search)
    listener.begun("checking the best")
    report = _measured(task, best, results[best], aim if is_timed else None)
    update = {
        "steps": task.shelf.steps(best),
        "search": search,
        "output": report.output.model_copy(update={"path": None}),
    }
    report = report.model_copy(update=update)
    if report.missed is not None:
        raise FloorError(
            f"the best pipeline misses the floor when it is measured again: {report.missed}; if "
            "the evaluator's data are others now, give another --cache",
            report,
        )
    return Found(results[best], report)


def _measured(task: Task, passes: Sequence[Pass], path: Path, aim: Aim | None) -> Report:
    """Evaluate a result again, and time it where there is an aim to find time by.

    An interrupt skips the timing, which takes longest.
    """
    seconds = None if aim is None else max(TIMED_SECONDS, TIMED_SHARE * 60 * aim.minutes)
    settings = task.settings.model_copy(
        update={"bench": aim is not None, "bench_seconds": seconds}
    )
    shelf = task.shelf
    try:
        report = shelf.compared(passes, path, task.model, data=task.data, settings=settings)
    except KeyboardInterrupt:
        plain = task.settings
        report = shelf.compared(passes, path, task.model, data=task.data, settings=plain)
    floor = {
        "missed": missed_floor(report, task.settings, task.floors),
        "doubt": doubt_of(report, task.settings, task.floors),
        "unchecked": task.unchecked,
    }
    return report.model_copy(update=floor)


def _nothing_found(task: Task, search: Search) -> FloorError:
    """Return the error of a search of which nothing is left but the report."""
    count, reasons = len(search.trials), [each.reason for each in search.trials]
    if count and all(each.status == "failed" for each in search.trials):
        missed = f"each of {count} pipelines failed, the first because {reasons[0]}"
    else:
        missed = (
            f"nothing among {count} pipelines is better than the original and keeps the floor "
            f"({search.floor})"
        )
    plain = {"evaluate": None, "max_drop": None, "min_snr": None}
    settings = task.settings.model_copy(update=plain)
    report = compare(task.model, task.model, data=task.data, settings=settings)
    remedy = "more --minutes, a larger --max-drop or another --target"
    return FloorError(
        f"{missed}; give {remedy if task.unchecked is None else '--data, which allows more'}",
        report.model_copy(
            update={
                "search": search,
                "missed": missed,
                "unchecked": task.unchecked,
                "output": report.output.model_copy(update={"path": None}),
            }
        ),
    )


def front_of(task: Task, trials: Trials, chosen: int | None) -> tuple[tuple[Trial, Path], ...]:
    """Return the results of which none is better in everything; latencies are equal to 2 %.

    Args:
        task: What the search worked on.
        trials: What was tried.
        chosen: Number of the trial that is one of them in any case.
    """
    front: list[tuple[Trial, Path]] = []
    found = [(trials[passes], path) for passes, path in _results(task, trials)]
    for trial, path in sorted(found, key=lambda each: (each[0].bytes or 0, each[0].number)):
        is_beaten = any(_is_as_good(other, trial) for other, _ in front)
        if trial.number == chosen or not is_beaten:
            front.append((trial, path))
    return tuple(front)


def _results(task: Task, trials: Trials) -> Iterator[tuple[tuple[Pass, ...], Path]]:
    """Yield the pipelines that gave something else than the original, and where that is."""
    for passes, trial in trials.items():
        path = task.shelf.model(passes)
        if trial.latency_ratio is None or path is None:
            continue
        if any(step.status == "applied" for step in task.shelf.steps(passes)):
            yield passes, path


def _is_as_good(one: Trial, other: Trial) -> bool:
    """Tell whether a trial that is no larger is as fast and as accurate, too."""
    if one.latency_ratio is None or other.latency_ratio is None:
        return False
    strains = [inf if each.strain is None else each.strain for each in (one, other)]
    return strains[0] <= strains[1] and one.latency_ratio <= other.latency_ratio + SAME_LATENCY
