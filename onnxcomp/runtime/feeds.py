"""Every form in which samples come: files, folders, and what a Python program has at hand."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from onnxcomp.errors import DataError, OptionError
from onnxcomp.runtime.arrays import MemoryRows, Rows, StoredRows, open_npy, open_npz
from onnxcomp.runtime.ports import Port, check_feed, check_names, misfit, shape_fits
from onnxcomp.runtime.samples import Feed, Samples, cast_feed, castable, fit_dtype

_MOST_SAMPLES = 16
_MOST_BYTES = 1 << 23
_SET = "test_data_set_*"
_FORMS = "give one .npz, a .npy, a folder of .npz, or test_data_set_* folders"


def read_samples(source: Any, inputs: Sequence[Port], limit: int | None = None) -> Samples:
    """Find the samples in ``source`` and check them against a model's inputs.

    Files are checked by their headers here, and their data is read when a feed is needed, a few
    samples at a time. A float64 array for a float32 input is cast, as any float is to another
    width, and integers are where every value fits.

    Args:
        source: The path of one ``.npz`` (every input; axis 0 counts the samples), of a ``.npy``
            (a single input), of a folder of ``.npz`` (each a complete feed), or of an ONNX
            ``test_data_set_*`` folder or a folder of those. Or a mapping of arrays, as in the one
            ``.npz``; an iterable of complete feeds; a ``CalibrationDataReader``.
            Where a single ``.npz`` holds an array of one axis more than the input has, each
            entry along axis 0 is the input whole.
        inputs: The inputs of the session that the samples are for.
        limit: Use the first so many samples (complete feeds, files); None for all.

    Raises:
        DataError: Nothing is there, a file is damaged, or a name, shape, dtype or count does not
            fit the inputs.
        OptionError: ``limit`` is below 1.
    """
    if limit is not None and limit < 1:
        raise OptionError(f"samples must be at least 1, got {limit}")
    if isinstance(source, str | Path):
        return _from_path(Path(source), tuple(inputs), limit)
    if isinstance(source, Mapping):
        rows = {str(name): MemoryRows(np.asarray(array)) for name, array in source.items()}
        return _stacked(rows, tuple(inputs), limit, "data")
    return _from_feeds(source, tuple(inputs), limit)


def _from_path(path: Path, inputs: tuple[Port, ...], limit: int | None) -> Samples:
    if path.is_dir():
        return _from_folder(path, inputs, limit)
    if path.suffix == ".npz":
        return _stacked(open_npz(path), inputs, limit, str(path))
    if path.suffix == ".npy":
        if len(inputs) != 1:
            names = ", ".join(port.name for port in inputs) or "none"
            raise DataError(
                f"{path}: a .npy feeds one input, the model has {len(inputs)} ({names});"
                " give an .npz"
            )
        return _stacked({inputs[0].name: open_npy(path)}, inputs, limit, str(path))
    if not path.exists():
        raise DataError(f"cannot read {str(path)!r}: no such file or directory")
    raise DataError(f"cannot read {str(path)!r}: unknown form of data; {_FORMS}")


def _from_folder(path: Path, inputs: tuple[Port, ...], limit: int | None) -> Samples:
    files = sorted(path.glob("*.npz"), key=_natural)[:limit]
    if files:
        readers = [_FeedFile(file, inputs) for file in files]
        for reader in readers:
            reader.check()
        return Samples(str(path), len(files), partial(_each, readers))
    folders = sorted(path.glob(_SET), key=_natural) or [path]
    folders = [folder for folder in folders if (folder / "input_0.pb").exists()][:limit]
    if not folders:
        raise DataError(
            f"cannot read {str(path)!r}: holds no .npz and no test_data_set_* folder; {_FORMS}"
        )
    sets = [_TestDataSet(folder, inputs) for folder in folders]
    sets[0].read()
    return Samples(str(path), len(sets), partial(_each, sets))


def _from_feeds(source: Any, inputs: tuple[Port, ...], limit: int | None) -> Samples:
    """Take complete feeds from memory; what can be iterated only once is kept."""
    if hasattr(source, "get_next"):
        feeds = list(islice(iter(source.get_next, None), limit))
    elif isinstance(source, Iterable):
        feeds = list(islice(source, limit))
    else:
        raise DataError(f"data: cannot read samples from {type(source).__name__}; {_FORMS}")
    if not feeds:
        raise DataError("data: no samples")
    held = [_HeldFeed(feed, inputs, f"data: feed {place}") for place, feed in enumerate(feeds)]
    for feed in held:
        feed.read()
    return Samples("data", len(held), partial(_each, held))


def _stacked(
    rows: Mapping[str, Rows], inputs: tuple[Port, ...], limit: int | None, where: str
) -> Samples:
    """Cut arrays whose first axis counts the samples into feeds."""
    check_names(tuple(rows), inputs, where)
    if not inputs:
        raise DataError(f"{where}: the model has no inputs, so it takes no data")
    columns = [_column(port, rows[port.name], where) for port in inputs]
    first = columns[0]
    for column in columns:
        if column.rows.shape[0] != first.rows.shape[0]:
            raise DataError(
                f"{where}: input {column.port.name!r} has {column.rows.shape[0]} samples, input"
                f" {first.port.name!r} has {first.rows.shape[0]}; axis 0 must count the same"
            )
    count = min(first.rows.shape[0], limit or first.rows.shape[0])
    if count == 0:
        raise DataError(f"{where}: no samples")
    least, most = _batch(columns, where)
    if count < least:
        raise DataError(f"{where}: {count} samples, but the model takes {least} at a time")
    count -= count % least
    return Samples(where, count, partial(_cut, columns, count, where), batch=most, least=least)


@dataclass(frozen=True)
class _Column:
    """The array of one input; ``whole`` where each entry along axis 0 is the input whole."""

    port: Port
    rows: Rows
    whole: bool


def _column(port: Port, rows: Rows, where: str) -> _Column:
    if port.dtype is None:
        raise DataError(f"{where}: input {port.name!r} is {port.type}; only tensors can be fed")
    if not castable(rows.dtype, port.dtype):
        raise DataError(
            f"{where}: input {port.name!r} has dtype {rows.dtype}, expected {port.dtype}"
        )
    shape, dims = rows.shape, port.shape
    if dims and len(shape) == len(dims) and shape_fits(shape[1:], dims[1:]):
        return _Column(port, rows, whole=False)
    if len(shape) == len(dims) + 1 and shape_fits(shape[1:], dims):
        return _Column(port, rows, whole=True)
    if not dims and shape:
        return _Column(port, rows, whole=False)
    raise DataError(f"{where}: {misfit(port, shape)}, with the samples along axis 0")


def _batch(columns: Sequence[_Column], where: str) -> tuple[int, int]:
    """Return the least and the most samples that one feed may hold."""
    stacked = [column for column in columns if not column.whole]
    fixed = {
        column.port.shape[0]: column.port.name
        for column in stacked
        if column.port.shape and isinstance(column.port.shape[0], int)
    }
    sizes = [size for size in fixed if isinstance(size, int)]
    if len(sizes) > 1 or (sizes and sizes != [1] and len(stacked) < len(columns)):
        listed = ", ".join(f"{name!r} {size}" for size, name in fixed.items())
        raise DataError(
            f"{where}: inputs take different numbers of samples at a time ({listed});"
            " give a folder with one .npz a feed"
        )
    if sizes:
        return sizes[0], sizes[0]
    if len(stacked) < len(columns):
        return 1, 1
    sample = sum(
        int(np.prod(column.rows.shape[1:], dtype=np.int64)) * column.rows.dtype.itemsize
        for column in columns
    )
    return 1, max(1, min(_MOST_SAMPLES, _MOST_BYTES // max(sample, 1)))


def _cut(columns: Sequence[_Column], count: int, where: str, size: int) -> Iterator[Feed]:
    pieces = [column.rows.pieces(size, count) for column in columns]
    for arrays in zip(*pieces, strict=True):
        yield {
            column.port.name: fit_dtype(array[0] if column.whole else array, column.port, where)
            for column, array in zip(columns, arrays, strict=True)
        }


@dataclass(frozen=True)
class _FeedFile:
    """One ``.npz`` that is a complete feed."""

    path: Path
    inputs: tuple[Port, ...]

    def check(self) -> dict[str, StoredRows]:
        stored = open_npz(self.path)
        check_names(tuple(stored), self.inputs, str(self.path))
        for port in self.inputs:
            found = stored[port.name]
            if not shape_fits(found.shape, port.shape):
                raise DataError(f"{self.path}: {misfit(port, found.shape)}")
            if port.dtype is None or not castable(found.dtype, port.dtype):
                raise DataError(
                    f"{self.path}: input {port.name!r} has dtype {found.dtype},"
                    f" expected {port.dtype or port.type}"
                )
        return stored

    def read(self) -> Feed:
        stored = self.check()
        arrays = {name: array.read() for name, array in stored.items()}
        return cast_feed(arrays, self.inputs, str(self.path))


@dataclass(frozen=True)
class _TestDataSet:
    """One folder of ONNX's own form: ``input_0.pb``, ``input_1.pb``, ..."""

    path: Path
    inputs: tuple[Port, ...]

    def read(self) -> Feed:
        known = {port.name for port in self.inputs}
        feed: Feed = {}
        for place, file in enumerate(sorted(self.path.glob("input_*.pb"), key=_natural)):
            name, array = _read_tensor(file)
            if name not in known and place < len(self.inputs):
                name = self.inputs[place].name
            feed[name] = array
        feed = cast_feed(feed, self.inputs, str(self.path))
        check_feed(feed, self.inputs, str(self.path))
        return feed


@dataclass(frozen=True)
class _HeldFeed:
    """One complete feed in memory."""

    feed: Any
    inputs: tuple[Port, ...]
    where: str

    def read(self) -> Feed:
        if not isinstance(self.feed, Mapping):
            kind = type(self.feed).__name__
            raise DataError(f"{self.where} is {kind}, expected a dict of arrays by input name")
        feed = cast_feed(dict(self.feed), self.inputs, self.where)
        check_feed(feed, self.inputs, self.where)
        return feed


def _each(readers: Sequence[_FeedFile | _TestDataSet | _HeldFeed], _: int) -> Iterator[Feed]:
    for reader in readers:
        yield reader.read()


def _read_tensor(path: Path) -> tuple[str, Any]:
    import onnx  # noqa: PLC0415  # only this form of data needs it

    try:
        tensor = onnx.TensorProto.FromString(path.read_bytes())
        return tensor.name, onnx.numpy_helper.to_array(tensor)
    except Exception as error:
        raise DataError(
            f"cannot read {str(path)!r}: not a tensor, or truncated; save it again"
        ) from error


def _natural(path: Path) -> list[tuple[int, str]]:
    """Order names by the numbers in them: ``test_data_set_10`` after ``test_data_set_9``."""
    parts = re.split(r"(\d+)", path.name)
    return [(int(part), "") if part.isdigit() else (0, part) for part in parts]
