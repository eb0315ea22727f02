"""The user's own measure of quality, found by name and called with a predictor."""

import importlib
import importlib.util
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from math import isfinite
from numbers import Real
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, computed_field

from onnxcomp.errors import OnnxcompError, OptionError
from onnxcomp.intervals import mean_interval, unseen_share
from onnxcomp.runtime.ports import check_feed
from onnxcomp.runtime.samples import cast_feed
from onnxcomp.runtime.sessions import open_session
from onnxcomp.runtime.values import Array

Predictor = Callable[[Mapping[str, Any]], dict[str, Array]]

_FORM = "give file.py:function or package.module:function"


class Metric(BaseModel):
    """A task metric of two models; higher is better.

    Attributes:
        original: The original's value, in the evaluator's unit.
        result: The result's value, in the evaluator's unit.
        items: Items whose mean each is; None where the evaluator gives a number for all.
        low: Lower end of the 95 % interval of the drop, by a paired bootstrap over the items, or
            where no item changed by what so few leave open; None without items.
        high: Upper end of it.
    """

    model_config = ConfigDict(frozen=True, defer_build=True)

    original: float
    result: float
    items: int | None = None
    low: float | None = None
    high: float | None = None

    @classmethod
    def of(cls, original: "Score", result: "Score") -> "Metric":
        """Return what two scores amount to.

        Raises:
            OnnxcompError: They are of different numbers of items.
        """
        plain = cls(original=original.value, result=result.value)
        if original.items is None or result.items is None:
            return plain
        if len(original.items) != len(result.items):
            raise OnnxcompError(
                f"the evaluator gave {len(original.items)} numbers for the original and "
                f"{len(result.items)} for the result; give one for each item, the same items"
            )
        drops = original.items - result.items
        if drops.any():
            low, high = mean_interval(drops)
        else:
            span = float(np.ptp(original.items)) or abs(original.value)
            low, high = -span * unseen_share(len(drops)), span * unseen_share(len(drops))
        return plain.model_copy(update={"items": len(drops), "low": low, "high": high})

    @computed_field  # type: ignore[prop-decorator]
    @property
    def drop(self) -> float:
        """What was lost, in the evaluator's unit; negative where the result is better."""
        return self.original - self.result

    @computed_field  # type: ignore[prop-decorator]
    @property
    def relative_drop(self) -> float | None:
        """What was lost, as a share of the original's value; None where that is 0."""
        return self.drop / abs(self.original) if self.original else None


@dataclass(frozen=True, eq=False)
class Score:
    """What an evaluator makes of one model.

    Attributes:
        value: The metric; higher is better.
        items: What the metric is the mean of, shape (items,); None where that is not known.
    """

    value: float
    items: Array | None


@dataclass(frozen=True)
class Evaluator:
    """A function that takes a predictor and returns a number, higher is better.

    It may return an array too, a number for each item: their mean is the metric, and the drop
    gets an interval.

    Attributes:
        reference: How the user named it.
        function: Called with ``predict(feed) -> {output: array}``.
        folder: Where the modules that it imports are looked for, besides the usual places.
    """

    reference: str
    function: Callable[[Predictor], Any]
    folder: Path

    def __call__(self, predict: Predictor) -> Any:
        """Return what the function returns, unchecked; :func:`evaluate` checks it."""
        with _importable(self.folder):
            return self.function(predict)


def load_evaluator(reference: str) -> Evaluator:
    """Find the function that ``file.py:function`` or ``package.module:function`` names.

    Raises:
        OptionError: The file, the module or the function is missing, or importing it fails.
    """
    place, _, name = reference.rpartition(":")
    if not place or not name:
        raise OptionError(f"evaluator {reference!r} names no function; {_FORM}")
    path = Path(place)
    is_file = path.suffix == ".py"
    if is_file and not path.is_file():
        raise OptionError(f"evaluator {reference!r}: no such file {place}; {_FORM}")
    folder = path.resolve().parent if is_file else Path.cwd()
    with _importable(folder):
        module = _import(reference, place, path if is_file else None)
    function = getattr(module, name, None)
    if not callable(function):
        found = ", ".join(_functions(module)) or "none"
        raise OptionError(f"evaluator {reference!r}: no function {name!r} (found: {found})")
    return Evaluator(reference, function, folder)


def evaluate(
    model: bytes | Path,
    evaluator: Callable[[Predictor], Any],
    provider: str = "cpu",
    threads: int = 0,
) -> Score:
    """Return what the evaluator makes of a model.

    Args:
        model: A serialised model, or the path of a file.
        evaluator: What :func:`load_evaluator` gave, or any function of a predictor. The predictor
            casts floats to the width of the input.
        provider: The execution provider.
        threads: Threads of one run; 0 leaves it to ONNX Runtime.

    Raises:
        OnnxcompError: The function raised, or did not return finite numbers.
        ModelError: ONNX Runtime refuses the model.
        ProviderError: The provider is not installed here.
    """
    session = open_session(model, provider, threads)

    def predict(feed: Mapping[str, Any]) -> dict[str, Array]:
        arrays = cast_feed(feed, session.inputs, "feed")
        check_feed(arrays, session.inputs)
        return session.run(arrays)

    name = _name(evaluator)
    try:
        # What it prints is no result of ours.
        with redirect_stdout(sys.stderr):
            value = evaluator(predict)
    except (Exception, SystemExit) as error:
        raise OnnxcompError(f"evaluator {name!r} raised {_line(error)}") from error
    if getattr(value, "shape", None) == (0,):
        raise OnnxcompError(f"evaluator {name!r} returned no items; it must judge one at least")
    if getattr(value, "ndim", 0) == 1 and value.dtype.kind in "biuf":
        items = value.astype(float)
        return Score(_number(items.mean(), name), items)
    return Score(_number(value, name), None)


def _number(value: Any, name: str) -> float:
    """Return the value as a float; NumPy scalars and arrays of one number are numbers too."""
    if getattr(value, "shape", None) == () and hasattr(value, "item"):
        value = value.item()
    if not isinstance(value, Real):
        kind = type(value).__name__
        raise OnnxcompError(
            f"evaluator {name!r} must return a number, or a 1-D array of one for each item, got "
            f"{kind}"
        )
    if not isfinite(value):
        raise OnnxcompError(f"evaluator {name!r} must return a finite number, got {value}")
    return float(value)


def _name(evaluator: Callable[[Predictor], Any]) -> str:
    if isinstance(evaluator, Evaluator):
        return evaluator.reference
    return getattr(evaluator, "__qualname__", type(evaluator).__name__)


def _line(error: BaseException) -> str:
    """Return the kind of an error and what it says, if anything, as one line."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _import(reference: str, place: str, path: Path | None) -> ModuleType:
    try:
        return importlib.import_module(place) if path is None else _import_file(path)
    except (Exception, SystemExit) as error:
        raise OptionError(
            f"evaluator {reference!r} cannot be imported ({_line(error)})"
        ) from error


def _import_file(path: Path) -> ModuleType:
    name = f"onnxcomp_evaluator_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ImportError(path)
    module = importlib.util.module_from_spec(spec)
    # Dataclasses look their module up by name.
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def _functions(module: ModuleType) -> list[str]:
    return sorted(
        name
        for name, value in vars(module).items()
        if callable(value) and not name.startswith("_") and not isinstance(value, type)
    )


@contextmanager
def _importable(folder: Path) -> Iterator[None]:
    """Let modules beside the evaluator be imported, as they would be if it were run."""
    entry = str(folder)
    sys.path.insert(0, entry)
    try:
        yield
    finally:
        sys.path.remove(entry)
