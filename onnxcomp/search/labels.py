"""Accuracy by given labels, on the samples that no pass sees."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING, Any
from zipfile import BadZipFile

import numpy as np

from onnxcomp.api import HELD_OUT, Settings
from onnxcomp.errors import DataError
from onnxcomp.runtime import open_session, samples_for
from onnxcomp.runtime.dtypes import is_float

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from onnxcomp.runtime.evaluation import Predictor

BATCH = 32


@dataclass(frozen=True)
class Accuracy:
    """An evaluator: the share of held-out samples whose largest output is at their label.

    Args:
        model: The original.
        data: The samples.
        labels: A file of integers, one for each sample, or for each row of its output.
        settings: Which samples there are.
    """

    model: Path
    data: Path
    labels: Path
    settings: Settings

    def __call__(self, predict: Predictor) -> NDArray[Any]:
        """Return whether each is right, shape (labels,).

        Raises:
            DataError: The labels do not fit the samples or the outputs.
        """
        session = open_session(self.model, self.settings.provider[0], self.settings.threads)
        samples = samples_for(session, self.data, self.settings.samples, self.settings.seed)
        labels = read_labels(self.labels)
        # Of a fixed batch, the last samples may not fill one; of a part, the others have labels.
        spare = inf if self.settings.samples is not None else samples.least
        if not 0 <= len(labels) - samples.count < spare:
            raise DataError(
                f"{self.labels}: {len(labels)} labels for {samples.count} samples; give one each"
            )
        # What is held out are whole batches, where the model fixes their size.
        units = labels[: samples.count // samples.least * samples.least]
        units = units.reshape(-1, samples.least, *labels.shape[1:])[HELD_OUT - 1 :: HELD_OUT]
        wanted = units.reshape(-1, *labels.shape[1:])
        found = [_classes(predict(feed)) for feed in samples.parted(HELD_OUT)[1].batched(BATCH)]
        given = np.concatenate(found)
        if given.shape != wanted.shape:
            raise DataError(
                f"{self.labels}: labels of shape {list(wanted.shape)} for outputs that name "
                f"classes of shape {list(given.shape)}"
            )
        right: NDArray[Any] = (given == wanted).reshape(-1)
        return right


def read_labels(path: Path) -> NDArray[Any]:
    """Read a class for each sample.

    Raises:
        DataError: The file is none of one array of integers.
    """
    try:
        loaded = np.load(path)
        arrays = list(loaded.values()) if isinstance(loaded, np.lib.npyio.NpzFile) else [loaded]
    except FileNotFoundError as error:
        raise DataError(f"cannot read labels {str(path)!r}: no such file") from error
    except (OSError, ValueError, EOFError, BadZipFile) as error:
        raise DataError(f"cannot read labels {str(path)!r}: not a .npy or .npz file") from error
    if len(arrays) != 1 or arrays[0].dtype.kind not in "iu" or not arrays[0].ndim:
        raise DataError(f"{path}: expected one array of integers, a class for each sample")
    return arrays[0]


def _classes(outputs: Mapping[str, NDArray[Any]]) -> NDArray[Any]:
    """Return where the first float output that has rows is largest."""
    for array in outputs.values():
        if is_float(array.dtype) and array.ndim > 1 and array.shape[-1] > 1:
            found: NDArray[Any] = np.argmax(array, axis=-1)
            return found
    raise DataError("labels need an output with a number for each class; use evaluate instead")
