"""Models packed for download: one checksummed zstd frame, which ``zstd`` and ``tar`` open too.

Stored codes need nothing done to them first: packed as they are, zstd codes them to within about
a per cent of the entropy of their bytes. Codes split into digits are larger, and planes of the
floats that are left save less than it is worth to need another program (`bench/packing.py`).
"""

from __future__ import annotations

import hashlib
import shutil
import tarfile
from itertools import chain
from pathlib import Path
from secrets import token_hex
from tempfile import TemporaryDirectory, TemporaryFile
from typing import IO, TYPE_CHECKING, cast

import zstandard

from onnxcomp.errors import ModelError, OptionError
from onnxcomp.graph.external import resolve_inside
from onnxcomp.graph.loading import check_file, load_model
from onnxcomp.graph.saving import copy_files, is_same_file, replacing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from io import BufferedReader

    Told = Callable[[float], None]

LEVEL = 19
"""The highest level that a reader needs no more memory for than the window."""

WINDOW = 27
"""Logarithm of the bytes that repetitions are looked for in: the most that ``zstd -d`` accepts."""

READ = 1 << 14
"""Bytes that are decompressed at a time: what they become fits into memory, whatever they are."""

COPIED = 1 << 20
"""Bytes that are compressed at a time."""


def pack_model(
    path: str | Path, output: str | Path, *, progress: Told = lambda _share: None
) -> list[Path]:
    """Pack a model with zstd, so that ``output`` holds what it held before or all of the model.

    The frame is unpacked again and compared before it takes its place.

    Args:
        path: The model's file.
        output: Where to: ``.zst``, or ``.tar.zst`` with the model's data files.
        progress: Told the share that is done.

    Returns:
        The files that were packed: the model first, then its data files.

    Raises:
        ModelError: It is not a model, or cannot be read, or ``output`` cannot be written.
        OptionError: ``output`` has a name that does not fit, or is what is packed.
    """
    path, output = Path(path), Path(output)
    files = [path, *load_model(path).data_paths]
    is_archive = output.name.endswith(".tar.zst")
    if output.suffix != ".zst":
        raise OptionError(f"output = {str(output)!r}: a packed model has a name that ends in .zst")
    if len(files) > 1 and not is_archive:
        raise OptionError(
            f"output = {str(output)!r}: weights of {path.name} lie in {files[1].name!r}; give a "
            "name that ends in .tar.zst, for an archive of both"
        )
    if any(is_same_file(output, each) for each in files):
        raise OptionError(f"output = {str(output)!r}: that is packed; give another name")
    size = sum(each.stat().st_size for each in files)
    try:
        with replacing(output) as file:
            packer = _Packer(file, size, progress, is_known=not is_archive)
            if is_archive:
                _add_all(packer, files)
            else:
                packer.add_file(path)
            packer.close()
            if packer.digest != _digest(Path(file.name)):
                raise ModelError(
                    f"{str(output)!r} does not unpack to {path.name}; nothing written"
                )
    except OSError as error:
        raise _unwritable(output, error) from error
    return files


def unpack_model(path: str | Path, output: str | Path) -> list[Path]:
    """Write the exact bytes of the files that `pack_model`, or ``zstd`` or ``tar``, packed.

    Args:
        path: The packed model.
        output: Where the model goes; its data files go beside it under the names that it knows.

    Returns:
        The files written: the model first, then its data files.

    Raises:
        ModelError: The packed file is damaged or cut off, holds something else than a model and
            all data files that it names, has one of which another of that name is there already,
            or ``output`` cannot be written.
        OptionError: ``output`` is ``path``.
    """
    path, output = Path(path), Path(output)
    if is_same_file(output, path):
        raise OptionError(f"output = {str(output)!r}: that is the packed model; give another name")
    try:
        with TemporaryDirectory(dir=output.parent, prefix=f".{output.name}.") as scratch:
            folder = Path(scratch).resolve()
            # Whatever the model is called, no data file of it is.
            model = folder / f"{token_hex(8)}.onnx"
            data = _extracted(path, model)
            _check_whole(path, model, data)
            targets = {each: output.resolve().parent / each.relative_to(folder) for each in data}
            copy_files(model, targets, output)
    except tarfile.TarError as error:
        raise ModelError(f"{str(path)!r} is no archive of a model and its data files") from error
    except OSError as error:
        raise _unwritable(output, error) from error
    return [output, *(output.parent / each.relative_to(folder) for each in data)]


class _Packer:
    """Compresses what is written to it, with a checksum of it.

    Args:
        file: Where the frame goes.
        size: Bytes that will be written, or about so many.
        progress: Told the share that is done.
        is_known: Whether the size is exact; the frame then says it.
    """

    def __init__(self, file: IO[bytes], size: int, progress: Told, *, is_known: bool) -> None:
        self._file = file
        self._progress = progress
        self._total = size
        self._done = 0
        self._digest = hashlib.sha256()
        parameters = zstandard.ZstdCompressionParameters.from_level(
            LEVEL, window_log=WINDOW, enable_ldm=True, write_checksum=True, write_content_size=True
        )
        compressor = zstandard.ZstdCompressor(compression_params=parameters)
        self._frame = compressor.stream_writer(file, size=size if is_known else -1, closefd=False)

    @property
    def digest(self) -> bytes:
        """The SHA-256 of what was written."""
        return self._digest.digest()

    def write(self, data: bytes) -> int:
        self._digest.update(data)
        self._frame.write(data)
        self._done += len(data)
        self._progress(min(1.0, self._done / max(1, self._total)))
        return len(data)

    def add_file(self, path: Path) -> None:
        with path.open("rb") as file:
            shutil.copyfileobj(file, self, COPIED)

    def close(self) -> None:
        self._frame.close()  # type: ignore[no-untyped-call]
        self._file.flush()


def _add_all(packer: _Packer, files: list[Path]) -> None:
    """Write a tar archive of a model and its data files, with nothing but names and bytes."""
    folder = files[0].parent
    with tarfile.open(fileobj=cast("IO[bytes]", packer), mode="w|") as archive:
        for path in files:
            entry = tarfile.TarInfo(path.relative_to(folder).as_posix())
            entry.size = path.stat().st_size
            with path.open("rb") as file:
                archive.addfile(entry, file)


def _digest(path: Path) -> bytes:
    """Return the SHA-256 of what a file unpacks to."""
    digest = hashlib.sha256()
    for chunk in _unpacked(path):
        digest.update(chunk)
    return digest.digest()


def _unpacked(path: Path) -> Iterator[bytes]:
    """Give what a file unpacks to, piece by piece; its checksum holds once all is given."""
    frame = zstandard.ZstdDecompressor(max_window_size=1 << WINDOW).decompressobj()
    try:
        with path.open("rb") as file:
            while data := file.read(READ):
                if frame.eof:
                    raise ModelError(f"{str(path)!r} has data after its end; pack the model again")
                if chunk := frame.decompress(data):
                    yield chunk
    except zstandard.ZstdError as error:
        raise ModelError(
            f"{str(path)!r} is damaged or not packed by zstd; download it again"
        ) from error
    except OSError as error:
        reason = (error.strerror or "cannot be read").lower()
        raise ModelError(f"cannot read {str(path)!r}: {reason}") from error
    if not frame.eof or frame.unused_data:
        what = "is cut off" if not frame.eof else "has data after its end"
        raise ModelError(f"{str(path)!r} {what}; download it again")


def _extracted(path: Path, model: Path) -> list[Path]:
    """Extract a packed model into an empty folder; return its data files.

    Args:
        path: The packed file.
        model: Where the model goes.

    Raises:
        ModelError: The file is not sound, or does not begin with a model.
    """
    chunks = _unpacked(path)
    first = next(chunks, b"")
    whole = chain([first], chunks)
    if first[257:262] != b"ustar":
        with model.open("xb") as file:
            file.writelines(whole)
        check_file(model, f"what {str(path)!r} holds")
        return []
    with TemporaryFile(dir=model.parent) as content:
        content.writelines(whole)
        content.seek(0)
        with tarfile.open(fileobj=content) as archive:
            return _extracted_members(archive, path, model)


def _extracted_members(archive: tarfile.TarFile, path: Path, model: Path) -> list[Path]:
    """Extract an archive, its first file as the model; return the others.

    Raises:
        ModelError: It holds something else than files, or leads out of the folder.
    """
    entries = archive.getmembers()
    if not entries or not all(each.isreg() and not each.issparse() for each in entries):
        raise ModelError(f"{str(path)!r} is no archive of a model and its data files")
    targets = [model, *(resolve_inside(model.parent, each.name) for each in entries[1:])]
    if len(set(targets)) < len(targets):
        raise ModelError(f"{str(path)!r} holds two files of one name; unpack it with tar")
    for entry, target in zip(entries, targets, strict=True):
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("xb") as file:
            shutil.copyfileobj(_content(archive, entry), file, COPIED)
        if target == model:
            check_file(model, f"what {str(path)!r} begins with")
    return targets[1:]


def _check_whole(path: Path, model: Path, data: list[Path]) -> None:
    """Check that a model came with the data files that it names, and with nothing else.

    Raises:
        ModelError: One is missing or too short, or the model does not name one.
    """
    folder = model.parent
    try:
        named = {each.resolve() for each in load_model(model).data_paths}
    except ModelError as error:
        # Nobody knows the folder that they are in for now.
        reason = str(error).replace(str(folder), str(path))
        raise ModelError(f"{reason}; pack the model again") from error
    extra = next((each for each in data if each not in named), None)
    if extra is not None:
        raise ModelError(
            f"{str(path)!r} holds {str(extra.relative_to(folder))!r}, which the model does "
            "not name; unpack it with tar"
        )


def _content(archive: tarfile.TarFile, entry: tarfile.TarInfo) -> BufferedReader:
    """Open a regular file of an archive."""
    return cast("BufferedReader", archive.extractfile(entry))


def _unwritable(path: Path, error: OSError) -> ModelError:
    reason = (error.strerror or "cannot be written").lower()
    return ModelError(f"cannot write {str(path)!r}: {reason}")
