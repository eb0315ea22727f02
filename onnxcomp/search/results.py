"""What a search found: the best result, and those of which none is better in everything."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from onnxcomp.api import compare, recipe_of
from onnxcomp.errors import FloorError
from onnxcomp.graph import load_model, save_model
from onnxcomp.graph.saving import replacing
from onnxcomp.pipeline import recipe_toml
from onnxcomp.report import Report, Search, record_of_files
from onnxcomp.search.floors import floor_in_words

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from onnxcomp.api import Limits
    from onnxcomp.pipeline import Pass
    from onnxcomp.report import Trial
    from onnxcomp.search.aims import Aim
    from onnxcomp.search.preparing import Task

    Trials = Mapping[tuple[Pass, ...], Trial]

SAME_LATENCY = 0.02
"""Difference of two latency ratios that is noise."""


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
            ModelError: The folder cannot be written.
        """
        folder.mkdir(exist_ok=True)
        written = []
        for trial, path in self.trials:
            model = folder / f"{trial.number:03}.onnx"
            save_model(load_model(path), model)
            with replacing(model.with_suffix(".toml")) as file:
                file.write(recipe_toml(recipe_of(path)).encode())
            written.append(model)
        return written


def best_of(task: Task, aim: Aim, limits: Limits, trials: Trials) -> Found:
    """Check and time the best result, and report what was tried.

    Raises:
        FloorError: There is none that is better than the original.
    """
    kept = {passes: trial for passes, trial in trials.items() if trial.status == "kept"}
    least = limits.min_size_ratio or 0.0
    kept = {
        passes: each for passes, each in kept.items() if task.bytes >= least * (each.bytes or 0)
    }
    floor = floor_in_words(task.settings, task.metric)
    passes = min(kept, key=lambda each: aim.objective(kept[each], task.bytes), default=())
    if not kept or aim.objective(kept[passes], task.bytes) >= 1:
        raise FloorError(
            f"nothing among {len(trials)} pipelines is better than the original and keeps the "
            f"floor ({floor}); give more --minutes, a larger --max-drop or another --target"
        )
    path = task.shelf.model(passes)
    assert path is not None  # noqa: S101 - it was kept
    settings = task.settings.model_copy(update={"bench": True})
    report = compare(task.model, path, data=task.data, settings=settings)
    update = {
        "steps": task.shelf.steps(passes),
        "search": Search(
            goal=aim.goal,
            floor=floor,
            trials=tuple(trials.values()),
            chosen=kept[passes].number,
        ),
        "output": report.output.model_copy(update={"path": None}),
    }
    return Found(path, report.model_copy(update=update))


def front_of(task: Task, best: Found, trials: Trials) -> Front:
    """Return the results of which none is better in everything; latencies are equal to 2 %."""
    front: list[tuple[Trial, Path]] = []
    ranked = sorted(trials.items(), key=lambda each: (each[1].bytes or 0, each[1].number))
    for passes, trial in ranked:
        path = task.shelf.model(passes)
        steps = task.shelf.steps(passes) if path is not None else ()
        is_original = not any(step.status == "applied" for step in steps)
        if trial.latency_ratio is None or path is None or is_original:
            continue
        if not any(_is_as_good(other, trial) for other, _ in front):
            front.append((trial, path))
    return Front(best, tuple(front))


def _is_as_good(one: Trial, other: Trial) -> bool:
    """Tell whether a trial that is no larger is as fast and as accurate, too."""
    if one.latency_ratio is None or other.latency_ratio is None:
        return False
    if one.expected_drop is not None and other.expected_drop is not None:
        is_as_close = one.expected_drop <= other.expected_drop
    else:
        is_as_close = (one.snr_db or 0.0) >= (other.snr_db or 0.0)
    return is_as_close and one.latency_ratio <= other.latency_ratio + SAME_LATENCY
