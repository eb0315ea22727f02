"""Tensor data that lies in a file of its own beside the model (ONNX external data)."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from onnxcomp.errors import ModelError

if TYPE_CHECKING:
    import onnx
    from numpy.typing import NDArray


class DataFiles:
    """The data files of one model, each mapped into memory once and read-only.

    A mapping outlives the file's name, so that a model may be saved over the one it came from.

    Args:
        folder: The model's folder; None where the model did not come from a file.

    Attributes:
        folder: The same.
    """

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder
        self._mapped: dict[str, NDArray[np.uint8]] = {}

    @property
    def paths(self) -> list[Path]:
        """The files that tensors were found in."""
        folder = self.folder or Path()
        return [folder / location for location in sorted(self._mapped)]

    def read(self, tensor: onnx.TensorProto) -> NDArray[np.uint8]:
        """Return the bytes of a tensor whose data location is external, without reading them.

        Raises:
            ModelError: The file is missing, too short, or outside the model's folder.
        """
        fields = {entry.key: entry.value for entry in tensor.external_data}
        location = fields.get("location", "")
        if self.folder is None:
            raise ModelError(
                f"tensor {tensor.name!r} has its data in {location!r}, but the model did not come "
                "from a file; pass the path of the model instead"
            )
        if location not in self._mapped:
            self._mapped[location] = map_file(resolve_inside(self.folder, location))
        data = self._mapped[location]
        try:
            offset = int(fields.get("offset", 0))
            length = int(fields.get("length", len(data) - offset))
        except ValueError as error:
            message = f"tensor {tensor.name!r} has an external offset or length that is no number"
            raise ModelError(message) from error
        if offset < 0 or length < 0 or offset + length > len(data):
            raise ModelError(
                f"external data file {location!r} has {len(data)} bytes, but tensor "
                f"{tensor.name!r} needs {offset + length}; the file is truncated"
            )
        return data[offset : offset + length]


DEEPEST = 64
"""Folders in each other that the location of a data file may lead through."""


def resolve_inside(folder: Path, location: str) -> Path:
    """Return the path of ``location``, which must stay inside ``folder``.

    Raises:
        ModelError: The location is empty, absolute, very deep or leads out of the folder.
    """
    root = folder.resolve()
    if len(Path(location).parts) > DEEPEST:
        raise ModelError(
            f"external data location {location[:40]!r}... leads through more than {DEEPEST} "
            "folders; refused"
        )
    path = (root / location).resolve()
    if not location or Path(location).is_absolute() or not path.is_relative_to(root):
        raise ModelError(
            f"external data location {location!r} leads out of the model's folder; refused"
        )
    return path


def map_file(path: Path) -> NDArray[np.uint8]:
    """Map a whole file into memory, read-only.

    Raises:
        ModelError: There is no such file, or there can be none of its name.
    """
    try:
        is_there = path.is_file()
    except OSError as error:
        reason = (error.strerror or "cannot be read").lower()
        raise ModelError(f"external data file {path.name[:40]!r}...: {reason}") from error
    if not is_there:
        raise ModelError(f"external data file {path.name!r} is not in {str(path.parent)!r}")
    if path.stat().st_size == 0:
        return np.empty(0, np.uint8)
    return np.memmap(path, np.uint8, "r").view(np.ndarray)
