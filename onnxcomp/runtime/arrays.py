"""Arrays that are read a few samples at a time: ``.npy`` files, members of ``.npz``, memory."""

import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Protocol

import numpy as np

from onnxcomp.errors import DataError
from onnxcomp.runtime.dtypes import DType
from onnxcomp.runtime.values import Array

_READERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}
_DAMAGE = (OSError, EOFError, ValueError, zipfile.BadZipFile, zlib.error)


class Rows(Protocol):
    """An array that is read along its first axis."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Sizes of the whole array."""

    @property
    def dtype(self) -> DType:
        """Type of an element."""

    def pieces(self, size: int, count: int) -> Iterator[Array]:
        """Yield the first ``count`` rows, ``size`` at a time."""


@dataclass(frozen=True)
class MemoryRows:
    """An array in memory."""

    array: Array

    @property
    def shape(self) -> tuple[int, ...]:
        """Sizes of the whole array."""
        return self.array.shape

    @property
    def dtype(self) -> DType:
        """Type of an element."""
        return self.array.dtype

    def pieces(self, size: int, count: int) -> Iterator[Array]:
        """Yield the first ``count`` rows, ``size`` at a time."""
        for start in range(0, count, size):
            yield self.array[start : min(start + size, count)]


@dataclass(frozen=True)
class StoredRows:
    """An array in a file, of which only the header was read.

    Attributes:
        path: The ``.npy`` or ``.npz`` file.
        member: The array's name in an ``.npz``; None for a ``.npy``.
        shape: Sizes of the whole array.
        dtype: Type of an element.
        columns_first: The file holds it in Fortran order, so that it is read as a whole.
    """

    path: Path
    member: str | None
    shape: tuple[int, ...]
    dtype: DType
    columns_first: bool

    def pieces(self, size: int, count: int) -> Iterator[Array]:
        """Yield the first ``count`` rows, ``size`` at a time.

        Raises:
            DataError: The file is damaged.
        """
        if self.columns_first:
            yield from MemoryRows(self.read()).pieces(size, count)
            return
        row = self.shape[1:]
        with _open(self.path, self.member) as stream:
            _header(stream)
            for start in range(0, count, size):
                yield self._take(stream, (min(size, count - start), *row))

    def read(self) -> Array:
        """Return the whole array.

        Raises:
            DataError: The file is damaged.
        """
        with _open(self.path, self.member) as stream:
            _header(stream)
            if self.columns_first:
                return self._take(stream, self.shape[::-1]).transpose()
            return self._take(stream, self.shape)

    def _take(self, stream: IO[bytes], shape: tuple[int, ...]) -> Array:
        wanted = int(np.prod(shape, dtype=np.int64)) * self.dtype.itemsize
        place = _place(self.path, self.member)
        try:
            data = stream.read(wanted)
        except _DAMAGE as error:
            raise DataError(f"cannot read {place}: damaged ({error}); save it again") from error
        if len(data) != wanted:
            raise DataError(f"cannot read {place}: truncated; save it again")
        return np.frombuffer(data, self.dtype).reshape(shape)


def open_npy(path: Path) -> StoredRows:
    """Read the header of a ``.npy`` file.

    Raises:
        DataError: The file is missing, truncated, or not a ``.npy``.
    """
    return _stored(path, None, _size(path))


def open_npz(path: Path) -> dict[str, StoredRows]:
    """Read the headers of every array in an ``.npz`` file.

    Raises:
        DataError: The file is missing, truncated, or not an ``.npz``.
    """
    _size(path)
    try:
        with zipfile.ZipFile(path) as archive:
            sizes = {entry.filename: entry.file_size for entry in archive.infolist()}
    except _DAMAGE as error:
        raise DataError(
            f"cannot read {str(path)!r}: not an .npz file, or truncated; save it again"
        ) from error
    return {
        name.removesuffix(".npy"): _stored(path, name.removesuffix(".npy"), size)
        for name, size in sizes.items()
        if name.endswith(".npy")
    }


def _stored(path: Path, member: str | None, size: int) -> StoredRows:
    place = _place(path, member)
    try:
        with _open(path, member) as stream:
            shape, columns_first, dtype = _header(stream)
            start = stream.tell()
    except _DAMAGE as error:
        raise DataError(
            f"cannot read {place}: not a .npy array, or truncated; save it again"
        ) from error
    if dtype.hasobject:
        raise DataError(f"cannot read {place}: holds Python objects; save text with dtype=str")
    if size - start < int(np.prod(shape, dtype=np.int64)) * dtype.itemsize:
        raise DataError(f"cannot read {place}: truncated; save it again")
    return StoredRows(path, member, shape, dtype, columns_first)


def _header(stream: IO[bytes]) -> tuple[tuple[int, ...], bool, DType]:
    version = np.lib.format.read_magic(stream)
    if version not in _READERS:
        raise ValueError(version)
    return _READERS[version](stream)


def _open(path: Path, member: str | None) -> IO[bytes]:
    if member is None:
        return path.open("rb")
    with zipfile.ZipFile(path) as archive:
        return archive.open(f"{member}.npy")


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError as error:
        reason = (error.strerror or "cannot be opened").lower()
        raise DataError(f"cannot read {str(path)!r}: {reason}") from error


def _place(path: Path, member: str | None) -> str:
    return repr(str(path)) if member is None else f"array {member!r} of {str(path)!r}"
