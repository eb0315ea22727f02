"""Models to files: the old file or the whole new one, whenever the writer dies.

What replaces a model with a data file does so alone in its folder, as far as the file system lets
it (an advisory lock), so that no other writer removes the data of what stays.
"""

from __future__ import annotations

import filecmp
import mmap
import os
import re
import secrets
import shutil
import stat
import zlib
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from itertools import count
from pathlib import Path
from typing import IO, TYPE_CHECKING

import numpy as np
import onnx

from onnxcomp.errors import ModelError
from onnxcomp.graph.loading import LARGEST_MESSAGE, serialise
from onnxcomp.graph.writing import count_bytes, write_model

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from concurrent.futures import Executor, Future

    from numpy.typing import NDArray

    from onnxcomp.graph.model import Model
    from onnxcomp.graph.writing import Load

PAGE = 4096
"""Large tensors start at multiples of this, so that they can be mapped."""

LINE = 64
"""Tensors below a mebibyte start at multiples of this."""

MEBIBYTE = 1 << 20

CHUNK = 1 << 24
"""Bytes that are written at a time."""

SAMPLING = 4093
"""One byte in so many is looked at to name a data file; a prime, so that no column is missed."""

UNNAMED = "?"
"""The location of external data until the data file has its name."""


def save_model(model: Model, path: str | Path) -> list[Path]:
    """Write a model so that ``path`` holds either what it held before or the whole new model.

    Weights of a model that had external data, or that is too large for one message, go into one
    data file beside it, whose name ends in a checksum of its content. The message is renamed into
    place after the data is on disk; then the replaced model's data file is removed, unless another
    ``*.onnx`` file of the folder names it or the folder cannot be locked.

    Args:
        model: The model.
        path: Where to; its folder must exist.

    Returns:
        The files written: ``path``, and the data file where there is one.

    Raises:
        ModelError: The folder cannot be written, or ``path`` is no regular file.
    """
    path = _target(path)
    with _told(path):
        if model.is_external or count_bytes(model) > LARGEST_MESSAGE:
            return _save_with_data(model, path)
        return _put_in_place(path, partial(_write, path, serialise(write_model(model))))


def save_unchanged(source: Path | bytes, model: Model, path: str | Path) -> list[Path]:
    """Write a model that nothing changed as the bytes that it came as.

    Args:
        source: Its file, or the bytes of one.
        model: What was read from that.
        path: Where to; its folder must exist.

    Returns:
        The files that the model is in: ``path``, and its data files, under the names it has them.

    Raises:
        ModelError: The folder cannot be written, ``path`` is no regular file, or a data file of
            that name is there with other content.
    """
    path = _target(path)
    if isinstance(source, bytes):
        with _told(path):
            return _put_in_place(path, partial(_write, path, source))
    folder = source.parent
    return copy_files(
        source, {each: path.parent / each.relative_to(folder) for each in model.data_paths}, path
    )


def copy_files(model: Path, data: Mapping[Path, Path], path: str | Path) -> list[Path]:
    """Write copies of a model's file and its data files: all of them, or nothing.

    Args:
        model: The model's file.
        data: Its data files, and where each goes; one that is there already stays.
        path: Where the model goes; its folder must exist.

    Returns:
        The files: the model first.

    Raises:
        ModelError: One cannot be written, or a data file is there with other content.
    """
    path = _target(path)
    if path in data.values():
        raise ModelError(
            f"{str(path)!r} is where a data file of the model goes; give another name"
        )
    with _told(path):
        return _put_in_place(path, partial(_copy_all, model, data, path))


def _copy_all(model: Path, data: Mapping[Path, Path], path: Path) -> list[Path]:
    """Copy data files, and then the model that names them.

    Where that fails, what was made is removed, unless the model is in its place already.
    """
    undo = ExitStack()
    try:
        for source, target in data.items():
            if not _is_there(source, target):
                _make_folder(target.parent, undo)
                _copy(source, target)
                undo.callback(target.unlink, missing_ok=True)
        _copy(model, path)
    except BaseException:
        if not (path.is_file() and filecmp.cmp(model, path, shallow=False)):
            undo.close()
        raise
    return [path, *data.values()]


def _make_folder(folder: Path, undo: ExitStack) -> None:
    """Make a folder and those that it is in; undoing removes those that are empty."""
    for each in reversed((folder, *folder.parents)):
        if not each.exists():
            each.mkdir(exist_ok=True)
            undo.callback(_remove_empty, each)


def _remove_empty(folder: Path) -> None:
    with suppress(OSError):
        folder.rmdir()


def _is_there(source: Path, target: Path) -> bool:
    """Whether a data file is there already; one of other content may belong to another model."""
    if not target.exists():
        return False
    if not target.is_file() or not filecmp.cmp(source, target, shallow=False):
        raise ModelError(
            f"data file {str(target)!r} is there with other content; write to another folder"
        )
    return True


def _copy(source: Path, target: Path) -> None:
    with source.open("rb") as given, replacing(target) as file:
        shutil.copyfileobj(given, file, CHUNK)


def _write(path: Path, data: bytes) -> list[Path]:
    with replacing(path) as file:
        file.write(data)
    return [path]


def _target(path: str | Path) -> Path:
    """Return where a path leads, if a file may be put there.

    Raises:
        ModelError: Something is there that is no regular file.
    """
    check_regular(Path(path))
    return Path(path).resolve()


def check_regular(path: Path) -> None:
    """Refuse a target that is there and no regular file: it would be gone once it is replaced.

    Raises:
        ModelError: It is a device, a pipe or a socket.
    """
    try:
        mode = path.stat().st_mode
    except OSError:
        return
    # A folder stays what it is: nothing can be renamed to its name.
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
        kinds = ((stat.S_ISFIFO, "pipe"), (stat.S_ISSOCK, "socket"))
        kind = next((name for holds, name in kinds if holds(mode)), "device")
        raise ModelError(f"cannot write {str(path)!r}: it is a {kind}; give the name of a file")


def is_same_file(one: Path, other: Path) -> bool:
    """Tell whether two paths lead to one file, by links too, or would if it were there."""
    if one.exists() and other.exists():
        return one.samefile(other)
    return one.resolve() == other.resolve()


@contextmanager
def _told(path: Path) -> Iterator[None]:
    """Tell what the system has against writing, in one line."""
    try:
        yield
    except OSError as error:
        reason = (error.strerror or "cannot be written").lower()
        raise ModelError(f"cannot write {str(path)!r}: {reason}") from error


def _put_in_place(path: Path, put: Callable[[], list[Path]]) -> list[Path]:
    """Let a model take its place, and remove the data file of the one that it replaces.

    Args:
        path: The model's place.
        put: Puts it there, and returns its files, data files that were there before too.
    """
    with _alone(path.parent) as is_alone:
        replaced = _data_files_of(path) if is_alone else set()
        written = put()
        for each in replaced.difference(written):
            if not _is_named_beside(each):
                with suppress(OSError):  # the model is whole without
                    each.unlink()
    return written


@contextmanager
def _alone(folder: Path) -> Iterator[bool]:
    """Wait until no other writer is in a folder; yield whether it can be told.

    The lock goes with the process, and leaves no file.
    """
    if fcntl is None:
        yield False
        return
    descriptor = os.open(folder, os.O_RDONLY)
    is_locked = False
    try:
        with suppress(OSError):  # some file systems have none
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            is_locked = True
        yield is_locked
    finally:
        os.close(descriptor)


def _save_with_data(model: Model, path: Path) -> list[Path]:
    with _temporary(path) as file:
        with ThreadPoolExecutor(max_workers=1) as background:
            data = _DataWriter(file, background)
            proto = write_model(model, offload=data.add)
        _flush(file)
        _adopt_mode(path, file)
        put = partial(_name_and_put, proto, path, Path(file.name), data.digest)
        return _put_in_place(path, put)


def _name_and_put(proto: onnx.ModelProto, path: Path, content: Path, digest: str) -> list[Path]:
    """Give a data file its name, and then the model that names it its place."""
    written = _data_path(path, digest, content)
    content.replace(written)
    _name_data(proto, written.name)
    return [*_write(path, serialise(proto)), written]


class _DataWriter:
    """Appends tensors to a data file and points them to their bytes.

    What is written goes on to the disk at once, in a thread: waiting for it at the end would take
    as long again.
    """

    def __init__(self, file: IO[bytes], background: Executor) -> None:
        self._file = file
        self._background = background
        self._checksum = 0
        self._size = 0
        self._syncing: Future[None] | None = None

    @property
    def digest(self) -> str:
        """A name for the content, by a sample: a checksum of all takes as long as writing."""
        return f"{self._checksum:08x}{self._size >> 6 & 0xFFFF:04x}"

    def add(self, header: onnx.TensorProto, size: int, load: Load) -> None:
        self._write(np.zeros(-self._size % (PAGE if size >= MEBIBYTE else LINE), np.uint8))
        fields = {"location": UNNAMED, "offset": str(self._size), "length": str(size)}
        data = load()
        for start in range(0, size, CHUNK):
            self._write(data[start : start + CHUNK])
        header.data_location = onnx.TensorProto.EXTERNAL
        for key, value in fields.items():
            header.external_data.add(key=key, value=value)

    def _write(self, chunk: NDArray[np.uint8]) -> None:
        self._file.write(chunk.data)
        self._size += len(chunk)
        sample = chunk if len(chunk) <= PAGE else chunk[::SAMPLING].copy()
        self._checksum = zlib.crc32(sample.data, self._checksum)
        if self._syncing is None or self._syncing.done():
            self._syncing = self._background.submit(os.fsync, self._file.fileno())


def _data_path(path: Path, digest: str, content: Path) -> Path:
    """Return a name for a data file that no file of other content has."""
    for number in count():
        suffix = f"-{number}" if number else ""
        named = path.with_name(f"{path.stem}-{digest}{suffix}.data")
        if not named.exists() or filecmp.cmp(content, named, shallow=False):
            return named
    raise AssertionError


def _name_data(proto: onnx.ModelProto, name: str) -> None:
    graphs = [proto.graph]
    while graphs:
        graph = graphs.pop()
        for tensor in graph.initializer:
            for entry in tensor.external_data:
                if (entry.key, entry.value) == ("location", UNNAMED):
                    entry.value = name
        graphs.extend(attribute.g for node in graph.node for attribute in node.attribute)


def _data_files_of(path: Path) -> set[Path]:
    """Return the data files of an earlier save to ``path``."""
    if not path.is_file():
        return set()
    pattern = re.compile(rb"%s-[0-9a-f]{12}(?:-[0-9]+)?\.data" % re.escape(path.stem.encode()))
    names = set(pattern.findall(path.read_bytes()))
    return {path.with_name(name.decode()) for name in names}


def _is_named_beside(data_file: Path) -> bool:
    """Whether a model in the folder of a data file names it, as a copy of a replaced one does."""
    name = data_file.name.encode()
    return any(_contains(each, name) for each in data_file.parent.glob("*.onnx"))


def _contains(path: Path, text: bytes) -> bool:
    """Whether a file has a text in it, for all we know: one that cannot be read may have it."""
    try:
        if not path.is_file() or path.stat().st_size == 0:
            return False
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return data.find(text) >= 0
    except OSError:
        return True


@contextmanager
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """Open a file that takes the place of ``path`` once it is whole and on disk.

    Raises:
        ModelError: What is there is no regular file.
    """
    check_regular(path)
    with _temporary(path) as file:
        yield file
        _flush(file)
        _adopt_mode(path, file)
        Path(file.name).replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


@contextmanager
def _temporary(path: Path) -> Iterator[IO[bytes]]:
    """Open a new file beside ``path``; if it was not renamed, it is removed at the end."""
    name = path.with_name(f".{path.name}.{secrets.token_hex(6)}.tmp")
    try:
        with name.open("xb") as file:
            yield file
    finally:
        name.unlink(missing_ok=True)


def _adopt_mode(path: Path, file: IO[bytes]) -> None:
    """Give a new file the permissions of the one it replaces."""
    if path.exists():
        shutil.copymode(path, file.name)


def _flush(file: IO[bytes]) -> None:
    file.flush()
    os.fsync(file.fileno())
