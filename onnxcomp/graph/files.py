"""Models from and to files, bytes and other libraries' objects."""

from __future__ import annotations

import hashlib
import os
import re
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnx_graphsurgeon as gs
from google.protobuf.message import DecodeError, EncodeError

from onnxcomp.errors import ModelError
from onnxcomp.graph.external import DataFiles
from onnxcomp.graph.model import Model
from onnxcomp.graph.reading import read_model
from onnxcomp.graph.writing import write_model

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import IO

    from numpy.typing import NDArray

MESSAGE_LIMIT = (1 << 31) - 1
"""Protobuf writes no larger message."""

ALIGNMENT = 4096
"""Where tensors start in a data file, so that they can be mapped."""

LARGEST_ALIGNED = 1 << 20
"""Smaller tensors are packed at multiples of 64 bytes."""

CHUNK = 1 << 24
"""Bytes that are written at a time."""


def load_model(source: Any) -> Model:
    """Read a model, lazily.

    Args:
        source: A path, the bytes of a file, `onnx.ModelProto`, `onnx_graphsurgeon.Graph`,
            `onnx_ir.Model`, a PyTorch `ONNXProgram`, or a `Model`.

    Raises:
        ModelError: ``source`` is none of these, or not a model.
    """
    if isinstance(source, Model):
        return source
    if isinstance(source, str | Path):
        path = Path(source)
        return _checked(_parse_file(path), DataFiles(path.parent), str(path))
    if isinstance(source, bytes):
        return _checked(_parse(source, "the given bytes"), DataFiles(None), "the given bytes")
    if isinstance(source, onnx.ModelProto):
        private = onnx.ModelProto()
        private.CopyFrom(source)
        return _checked(private, DataFiles(None), "the given ModelProto")
    if isinstance(source, gs.Graph):
        proto = gs.export_onnx(source)  # noqa: TID251 - this is the room
        return _checked(proto, DataFiles(None), "the given GraphSurgeon graph")
    return _from_other(source)


def _from_other(source: Any) -> Model:
    """Read an `onnx_ir.Model` or whatever holds one or makes a message, by duck typing."""
    if hasattr(source, "model_proto"):  # torch.onnx.ONNXProgram
        return load_model(source.model_proto)
    if type(source).__module__.split(".")[0] == "onnx_ir":
        import onnx_ir  # noqa: PLC0415 - no dependency: the caller has it

        return load_model(onnx_ir.to_proto(source))
    raise ModelError(
        f"cannot read a model from {type(source).__name__}; give a path, bytes, onnx.ModelProto, "
        "onnx_graphsurgeon.Graph, onnx_ir.Model or torch.onnx.ONNXProgram"
    )


def _parse_file(path: Path) -> onnx.ModelProto:
    try:
        data = path.read_bytes()
    except OSError as error:
        reason = (error.strerror or "cannot be read").lower()
        raise ModelError(f"cannot read {str(path)!r}: {reason}") from error
    return _parse(data, str(path))


def _parse(data: bytes, name: str) -> onnx.ModelProto:
    if not data:
        raise ModelError(f"{name} is empty; export the model again")
    proto = onnx.ModelProto()
    try:
        proto.ParseFromString(data)
    except DecodeError as error:
        raise ModelError(f"{name} is truncated or not an ONNX model") from error
    return proto


def _checked(proto: onnx.ModelProto, files: DataFiles, name: str) -> Model:
    if not proto.HasField("graph") or not (proto.opset_import or proto.ir_version):
        raise ModelError(f"{name} is not an ONNX model: it has no graph")
    return read_model(proto, files)


def model_bytes(model: Model, *, lower: bool = True) -> bytes:
    """Return the model as the bytes of one file; the same model gives the same bytes.

    Raises:
        ModelError: The model is larger than one protobuf message may be; save it to a file.
    """
    return _serialise(write_model(model, lower=lower))


def _serialise(proto: onnx.ModelProto) -> bytes:
    try:
        data: bytes = proto.SerializeToString(deterministic=True)
    except (EncodeError, ValueError) as error:
        message = "the model is larger than 2 GiB; save it to a file, with external data"
        raise ModelError(message) from error
    return data


def estimated_bytes(model: Model, *, lower: bool = True) -> int:
    """Bytes of all constants: less than the file by its structure."""
    return sum(
        constant.nbytes if lower else constant.dense_nbytes
        for scope in model.all_scopes()
        for constant in scope.constants
    )


def save_model(model: Model, path: Path, *, lower: bool = True) -> list[Path]:
    """Write a model so that ``path`` holds either what it held before or the whole new model.

    Weights of a model that had external data, or that is too large for one message, go into one
    data file beside it, whose name ends in the hash of its content. The message is renamed into
    place after the data is on disk; a data file that only the replaced model used is removed.

    Returns:
        The files written: ``path``, and the data file where there is one.

    Raises:
        ModelError: The folder cannot be written.
    """
    path = Path(path)
    try:
        if not model.is_external and estimated_bytes(model, lower=lower) < MESSAGE_LIMIT - (
            1 << 26
        ):
            with _replacing(path) as file:
                file.write(model_bytes(model, lower=lower))
            return [path]
        return _save_external(model, path, lower=lower)
    except OSError as error:
        reason = (error.strerror or "cannot be written").lower()
        raise ModelError(f"cannot write {str(path)!r}: {reason}") from error


def _save_external(model: Model, path: Path, *, lower: bool) -> list[Path]:
    old = _data_files_of(path)
    with _temporary(path) as file:
        data = _DataWriter(file)
        proto = write_model(model, lower=lower, offload=data.add)
        name = f"{path.stem}-{data.digest}.data"
        data.settle(name)
        _flush(file)
        Path(file.name).replace(path.with_name(name))
    _flush_folder(path.parent)
    with _replacing(path) as file:
        file.write(_serialise(proto))
    written = path.with_name(name)
    for each in old - {written}:
        each.unlink(missing_ok=True)
    return [path, written]


class _DataWriter:
    """Appends tensors to a data file and points them to their bytes."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._hash = hashlib.sha256()
        self._tensors: list[onnx.TensorProto] = []

    @property
    def digest(self) -> str:
        return self._hash.hexdigest()[:12]

    def add(self, header: onnx.TensorProto, data: NDArray[np.uint8]) -> None:
        alignment = ALIGNMENT if data.nbytes >= LARGEST_ALIGNED else 64
        offset = self._file.tell()
        padding = -offset % alignment
        self._file.write(bytes(padding))
        for start in range(0, len(data), CHUNK):
            chunk = memoryview(data[start : start + CHUNK])
            self._hash.update(chunk)
            self._file.write(chunk)
        header.data_location = onnx.TensorProto.EXTERNAL
        for key, value in (("offset", offset + padding), ("length", len(data))):
            entry = header.external_data.add()
            entry.key, entry.value = key, str(value)
        self._tensors.append(header)

    def settle(self, name: str) -> None:
        """Say in every tensor what the file is called."""
        for tensor in self._tensors:
            entry = tensor.external_data.add()
            entry.key, entry.value = "location", name


@contextmanager
def _temporary(path: Path) -> Iterator[IO[bytes]]:
    """Open a new file beside ``path``, which is removed if the caller fails."""
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            named = _Named(file, name)
            yield named  # type: ignore[misc]
    finally:
        Path(name).unlink(missing_ok=True)
