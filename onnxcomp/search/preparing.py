"""What a search needs before it begins: the original measured, and files that processes share."""

from __future__ import annotations

import json
import pickle
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory, mkdtemp
from time import monotonic
from typing import TYPE_CHECKING, Any

import numpy as np

from onnxcomp.api import HELD_OUT, evaluator_of
from onnxcomp.errors import DataError, OptionError
from onnxcomp.graph import load_model, save_model
from onnxcomp.options import did_you_mean
from onnxcomp.pipeline import available_presets, read_recipe
from onnxcomp.report import environment, record_of_files
from onnxcomp.runtime import open_session, samples_for
from onnxcomp.search.labels import Accuracy, read_labels
from onnxcomp.search.outputs import LOOKED_AT, output_floors
from onnxcomp.search.shelf import MODEL, Shelf, digest, move_to, user_cache
from onnxcomp.search.spaces import Space
from onnxcomp.validation import OPTIMISER_FEEDS, evaluate, load_evaluator

if TYPE_CHECKING:
    from onnxcomp.api import Limits, OutputFloor, Settings
    from onnxcomp.pipeline import Pass
    from onnxcomp.runtime.evaluation import Score
    from onnxcomp.search.aims import Aim

DEFAULT_DROP = "1%"
"""The floor of a metric where none is asked for."""

SAFE, REPAIRED = "safe", "repaired"
"""Presets: what is tried first, and alone where no data can show what was lost; and what is tried
next where that loses too much."""

UNCHECKED = (
    "accuracy was not checked: without --data or --evaluate nothing below 8 bits is applied, and "
    "nothing that removes or zeroes weights; give --data to be shown what it costs, and for more"
)

CALIBRATION = 64
"""Samples that passes see unless told otherwise: a search has no time for many."""


COMPARED_SHARE = 0.25
"""The most of a search's time that comparing one result with the original may take."""

FEWEST_COMPARED = 2
"""Feeds that results are compared on, however short the time is."""


@dataclass(frozen=True)
class Task:
    """What a search works on.

    Args:
        model: The original, as a file.
        data: Samples, as a file or folder; None where there are none.
        score: What the evaluator makes of the original; None where there is none.
        limits: What size and latency must hold.
        settings: How results are checked, and the floor.
        floors: What single outputs must not miss, where no floor is asked for.
        shelf: What is finished.
        limited: Why results are compared on a part of the samples, in one line; None where not.
    """

    model: Path
    data: Path | None
    score: Score | None
    limits: Limits
    settings: Settings
    floors: tuple[OutputFloor, ...]
    shelf: Shelf
    limited: str | None = None

    @property
    def unchecked(self) -> str | None:
        """Why accuracy is not checked, in one line; None where it is."""
        return UNCHECKED if self.data is None and self.score is None else None

    @property
    def metric(self) -> float | None:
        """The original's task metric; None where none is asked for."""
        return None if self.score is None else self.score.value

    @cached_property
    def bytes(self) -> int:
        """Bytes of the original's files."""
        return record_of_files([self.model, *load_model(self.model).data_paths]).bytes


def prepared(model: Any, data: Any, aim: Aim, settings: Settings, limits: Limits) -> Task:
    """Measure the original, and put everything where processes find it.

    Raises:
        OnnxcompError: The original does not run, or something that was given does not fit.
    """
    cache = Path(aim.cache) if aim.cache is not None else user_cache() / "search"
    given = Shelf.at(cache / "given").folder
    model_file, data_file = _model_file(model, given), _data_file(data, given)
    settings = _with_metric(settings, aim, model_file, data_file)
    if aim.target is not None and data is None and settings.evaluate is None:
        raise OptionError(f"target = {aim.target!r} needs data: {UNCHECKED}")
    settings = _with_floor(settings, is_held_out=data_file is not None)
    floors, settings, limited = _first_run(settings, model_file, data_file, aim.minutes)
    shelf = Shelf.at(cache / _name(model_file, data_file, settings, floors, aim.labels))
    return Task(
        model=model_file,
        data=data_file,
        score=_score(settings, model_file, shelf),
        limits=limits,
        settings=settings,
        floors=floors,
        shelf=shelf,
        limited=limited,
    )


def target_file(target: str) -> Path:
    """Return the recipe that a target names: a preset, or a file.

    Raises:
        OptionError: There is none of that name.
    """
    presets = available_presets()
    if target in presets:
        return presets[target]
    if Path(target).suffix in {".toml", ".json"}:
        return Path(target)
    raise OptionError(
        f"unknown target {target!r}; {did_you_mean(target, list(presets))} (or give a recipe file)"
    )


def space_of(aim: Aim) -> Space:
    """Return what a search chooses from.

    Raises:
        OptionError: The target is none, or has no passes.
    """
    file = target_file(aim.target or aim.goal)
    passes = read_recipe(file)
    if not passes:
        raise OptionError(f"target {str(file)!r} has no passes to choose from; add some")
    return Space(passes)


def first_pipelines(aim: Aim, task: Task) -> list[tuple[Pass, ...]]:
    """Return what a search tries until it has a result, the most first; nothing with a target."""
    if aim.target is not None:
        return []
    safe = read_recipe(target_file(SAFE))
    repaired = [] if task.data is None else [read_recipe(target_file(REPAIRED))]
    return [safe, *repaired, safe[:1]]


def _model_file(model: Any, given: Path) -> Path:
    if isinstance(model, str | Path):
        return Path(model).resolve()
    with TemporaryDirectory(dir=given) as folder:
        save_model(load_model(model), Path(folder, MODEL))
        return _put(Path(folder), given) / MODEL


def _data_file(data: Any, given: Path) -> Path | None:
    """Return samples as files, as `onnxcomp.runtime.read_samples` takes them."""
    if data is None or isinstance(data, str | Path):
        return None if data is None else Path(data).resolve()
    with TemporaryDirectory(dir=given) as folder:
        if isinstance(data, Mapping):
            np.savez(Path(folder, "samples.npz"), **data)
            return _put(Path(folder), given) / "samples.npz"
        feeds = iter(data.get_next, None) if hasattr(data, "get_next") else data
        for place, feed in enumerate(feeds):
            if not isinstance(feed, Mapping):
                raise DataError(
                    f"data is a list of {type(feed).__name__}; give dicts of arrays by input name"
                )
            np.savez(Path(folder, f"{place:06}.npz"), **feed)
        return _put(Path(folder), given)


def _put(folder: Path, given: Path) -> Path:
    """Copy a folder to the place that its content names, and return that."""
    place = given / digest(folder)
    if place.is_dir():
        return place
    made = Path(mkdtemp(dir=given))
    shutil.copytree(folder, made, dirs_exist_ok=True)
    return move_to(place, made)


def _with_metric(settings: Settings, aim: Aim, model: Path, data: Path | None) -> Settings:
    if aim.labels is None:
        return settings
    if settings.evaluate is not None:
        raise OptionError("labels and evaluate are two metrics; give one")
    if data is None:
        raise OptionError("labels needs data: the samples that the labels are of")
    read_labels(Path(aim.labels))
    accuracy = Accuracy(model, data, Path(aim.labels).resolve(), settings)
    return settings.model_copy(update={"evaluate": accuracy})


def _with_floor(settings: Settings, *, is_held_out: bool) -> Settings:
    """Return settings that hold samples out where there are some, and have a metric's floor."""
    update: dict[str, Any] = {
        "hold_out": is_held_out,
        "calibration": settings.calibration or CALIBRATION,
        "validation": True,
        "bench": False,
    }
    if settings.evaluate is not None and settings.max_drop is None and settings.min_snr is None:
        update["max_drop"] = DEFAULT_DROP
    _check_evaluator(settings.evaluate)
    return settings.model_copy(update=update)


def _check_evaluator(evaluator: Any) -> None:
    """Refuse what a process of its own cannot find: it does not run this one's script."""
    remedy = "evaluate is a function that no other process can find; give file.py:function"
    if getattr(evaluator, "__module__", None) == "__main__":
        raise OptionError(remedy)
    try:
        pickle.dumps(evaluator)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise OptionError(remedy) from error


def _first_run(
    settings: Settings, model: Path, data: Path | None, minutes: float
) -> tuple[tuple[OutputFloor, ...], Settings, str | None]:
    """Run the original for the first time.

    Returns:
        Floors of outputs where no other is asked for, the settings with as many samples to compare
        on as there is time for, and why these are not all, if they are not.

    Raises:
        DataError: The samples do not fit, or are too few.
    """
    session = open_session(model, settings.provider[0], settings.threads)
    samples = samples_for(session, data, settings.samples, settings.seed)
    if data is not None:
        _, samples = samples.parted(HELD_OUT)
    started = monotonic()
    floors = output_floors(session, samples)
    feeds = samples.count // samples.least
    seconds = (monotonic() - started) / min(LOOKED_AT, feeds)
    if settings.max_drop is not None or settings.min_snr is not None:
        floors = ()
    count = samples.least * fitting(feeds, seconds, COMPARED_SHARE * 60 * minutes)
    if settings.compared is not None or count == samples.count:
        return floors, settings, None
    limited = (
        f"outputs are compared on {count} of the {samples.count} samples that there are for it, "
        "which is what there is time for; give more --minutes, or --compared"
    )
    return floors, settings.model_copy(update={"compared": count}), limited


def fitting(count: int, seconds: float, most: float) -> int:
    """Return on how many feeds two models can be compared in some time: all, a half, a quarter...

    Args:
        count: Feeds that there are.
        seconds: What one run of one model takes.
        most: Seconds for all.
    """
    while count > FEWEST_COMPARED:
        if 2 * (count + min(count, OPTIMISER_FEEDS)) * seconds <= most:
            break
        count = -(-count // 2)
    return count


def _name(
    model: Path,
    data: Path | None,
    settings: Settings,
    floors: tuple[OutputFloor, ...],
    labels: str | None,
) -> str:
    """Return the name of what finished trials depend on, besides their recipes."""
    held = settings.model_dump(exclude={"evaluate"})
    files = [data, _code_of(settings.evaluate), None if labels is None else Path(labels)]
    return digest(
        version("onnxcomp"),
        environment(settings.provider, settings.threads).to_json(),
        json.dumps(held, sort_keys=True),
        *(each.to_json() for each in floors),
        pickle.dumps(settings.evaluate),
        *("" if file is None else file for file in files),
        *(model, *load_model(model).data_paths),
    )


def _code_of(evaluator: Any) -> Path | None:
    """Return the file that an evaluator is in, where that is known."""
    if isinstance(evaluator, str):
        evaluator = load_evaluator(evaluator).function
    module = sys.modules.get(getattr(evaluator, "__module__", ""))
    code = getattr(module, "__file__", None)
    return None if code is None else Path(code)


def _score(settings: Settings, model: Path, shelf: Shelf) -> Score | None:
    evaluator = evaluator_of(settings)
    if evaluator is None:
        return None
    known = shelf.score()
    if known is None:
        known = evaluate(model, evaluator, settings.provider[0], settings.threads)
        shelf.remember(known)
    return known
