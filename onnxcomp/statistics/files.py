"""All statistics of a model, and the file that keeps them."""

from __future__ import annotations

import zipfile
import zlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from onnxcomp.errors import DataError
from onnxcomp.graph import fingerprint
from onnxcomp.graph.saving import replacing
from onnxcomp.statistics.layers import layers
from onnxcomp.statistics.observing import InputStatistics, walk, watch_inputs
from onnxcomp.statistics.ranges import Range, RangeWatch

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from onnxcomp.graph import Model
    from onnxcomp.runtime import Samples
    from onnxcomp.statistics.layers import Layer

FORMAT = 1
"""Version of the file's layout."""

DAMAGED = (EOFError, KeyError, NotImplementedError, TypeError, ValueError)
"""What reading a damaged file raises, besides errors of its compression."""


@dataclass(frozen=True)
class Statistics:
    """What the layers of a model multiply their weights with, and the range of what they read.

    Args:
        model: Fingerprint of the model.
        inputs: By the key of a layer.
        ranges: By the name of a tensor that a layer reads or gives; of all tensors of that name.
    """

    model: str
    inputs: dict[str, InputStatistics] = field(default_factory=dict)
    ranges: dict[str, Range] = field(default_factory=dict)

    def of(self, layer: Layer) -> InputStatistics:
        """Return the statistics of a layer; empty ones where it was not observed."""
        return self.inputs.get(layer.key, InputStatistics())

    def merge(self, other: Statistics) -> None:
        """Take in the statistics that the same model has on other samples.

        Raises:
            DataError: They are of another model.
        """
        if other.model != self.model:
            raise DataError("the statistics to merge are of another model; take those of one")
        fresh: dict[int, InputStatistics] = {}
        merged: set[int] = set()
        for key, theirs in other.inputs.items():
            new = fresh.setdefault(id(theirs), InputStatistics())
            mine = self.inputs.setdefault(key, new)
            if id(mine) not in merged:
                mine.merge(theirs)
            merged.add(id(mine))
        for name, their_range in other.ranges.items():
            self.ranges.setdefault(name, Range(their_range.channel_axis)).merge(their_range)

    def save(self, path: Path) -> None:
        """Write a file that `load_statistics` reads; the old one stays until it is whole.

        Raises:
            DataError: The folder cannot be written.
        """
        arrays: dict[str, NDArray[Any]] = {
            "format": np.array(FORMAT),
            "model": np.array(self.model),
        }
        numbers: dict[int, int] = {}
        names = []
        for name, inputs in self.inputs.items():
            number = numbers.setdefault(id(inputs), len(numbers))
            names.append(f"{number} {name}")
            arrays |= {f"input/{number}/{key}": each for key, each in inputs.arrays().items()}
        arrays["inputs"] = np.array(names, dtype=str)
        arrays["ranges"] = np.array(list(self.ranges), dtype=str)
        for number, each in enumerate(self.ranges.values()):
            arrays |= {f"range/{number}/{key}": array for key, array in each.arrays().items()}
        _write(path, arrays)


def observe(
    model: Model, samples: Samples, progress: Callable[[float], None] = lambda _: None
) -> Statistics:
    """Observe all that the layers of a model read and give.

    Args:
        model: The model.
        samples: Calibration samples.
        progress: Told the share that is done.
    """
    watched = [layer for layer in layers(model) if layer.uses]
    watches, inputs = watch_inputs(watched)
    ranges: dict[tuple[int, int], RangeWatch] = {}
    for use in (use for layer in watched for use in layer.uses):
        for tensor in use.activations:
            ranges.setdefault((id(tensor), id(use.scope)), RangeWatch.of(tensor, use))
    walk((model,), [*watches, *ranges.values()], samples, progress)
    by_key = {layer.key: each for layer, each in zip(watched, inputs, strict=True)}
    by_name: dict[str, Range] = {}
    for each in ranges.values():
        known = by_name.setdefault(each.name, each.range)
        if known is not each.range:
            known.merge(each.range)
    return Statistics(fingerprint(model), by_key, by_name)


def load_statistics(path: Path, model: Model) -> Statistics:
    """Read the statistics of a model from a file.

    Raises:
        DataError: The file is missing or damaged, or of another model.
    """
    try:
        with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        if int(arrays["format"]) != FORMAT:
            raise DataError(f"cannot read {str(path)!r}: of another version; make it again")
        found = Statistics(str(arrays["model"]), _inputs(arrays), _ranges(arrays))
    except OSError as error:
        reason = (error.strerror or "not a statistics file, or damaged").lower()
        raise DataError(f"cannot read {str(path)!r}: {reason}") from error
    except (*DAMAGED, zipfile.BadZipFile, zlib.error) as error:
        message = f"cannot read {str(path)!r}: not a statistics file, or damaged; make it again"
        raise DataError(message) from error
    if found.model != fingerprint(model):
        raise DataError(
            f"the statistics in {str(path)!r} are of another model; "
            "make them from this one with onnxcomp statistics"
        )
    return found


def _inputs(arrays: Mapping[str, NDArray[Any]]) -> dict[str, InputStatistics]:
    found: dict[str, InputStatistics] = {}
    shared: dict[str, InputStatistics] = {}
    for entry in arrays["inputs"]:
        number, _, name = str(entry).partition(" ")
        if number not in shared:
            shared[number] = InputStatistics.of_arrays(_under(arrays, f"input/{number}/"))
        found[name] = shared[number]
    return found


def _ranges(arrays: Mapping[str, NDArray[Any]]) -> dict[str, Range]:
    names = (str(name) for name in arrays["ranges"])
    return {
        name: Range.of_arrays(_under(arrays, f"range/{number}/"))
        for number, name in enumerate(names)
    }


def _under(arrays: Mapping[str, NDArray[Any]], prefix: str) -> dict[str, NDArray[Any]]:
    return {
        name.removeprefix(prefix): array
        for name, array in arrays.items()
        if name.startswith(prefix)
    }


def _write(path: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    try:
        with replacing(path) as file:
            np.savez_compressed(file, allow_pickle=False, **arrays)
    except OSError as error:
        reason = (error.strerror or "cannot be written").lower()
        raise DataError(f"cannot write {str(path)!r}: {reason}") from error
