"""Made-up samples, for a model of which nothing is known but its inputs."""

import re
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from itertools import islice, product
from typing import Any

import numpy as np

from onnxcomp.errors import DataError, ModelError
from onnxcomp.runtime.dtypes import is_float
from onnxcomp.runtime.feeds import read_samples
from onnxcomp.runtime.ports import Port
from onnxcomp.runtime.samples import Feed, Samples
from onnxcomp.runtime.sessions import Session
from onnxcomp.runtime.values import Array

Sizes = Mapping[str, int]

_LENGTHS = (32, 16, 64, 128, 224, 256, 512, 1)
_PIXELS = (224, 256, 128, 64, 32, 512, 16, 1)
_IMAGE_RANK = 4
_MOST_TRIES = 64
_MOST_ELEMENTS = 1 << 24
_WORDS = ("the", "quick", "brown", "fox")
_SYNTHETIC_COUNT = 4
# Samples that show whether a model takes more than one at a time; a large one is slow on many.
_FEW = 2


def samples_for(
    session: Session, source: Any = None, limit: int | None = None, seed: int = 0
) -> Samples:
    """Return the samples in ``source`` for a loaded model, or made-up ones where it is None.

    Where the model states a free batch size and yet runs only one sample at a time, the samples
    are fed one at a time.

    Args:
        session: The model that they are for.
        source: As for :func:`read_samples`; None for synthetic ones.
        limit: Use the first so many samples; None for all, or four synthetic ones.
        seed: Of the synthetic values.

    Raises:
        DataError: They do not fit the model.
        ModelError: The model does not run on the first of them.
    """
    if source is None:
        return synthetic_samples(session, limit or _SYNTHETIC_COUNT, seed)
    samples = read_samples(source, session.inputs, limit)
    if samples.batch > 1:
        try:
            session.run(next(iter(samples.batched(_FEW))))
        except ModelError:
            samples = samples.batched(1)
            session.run(next(iter(samples)))
    return samples


def synthetic_samples(session: Session, count: int, seed: int) -> Samples:
    """Make feeds up: normal floats, integers 0 and 1, words, of sizes that the model runs with.

    An integer without a second axis, or with "mask" in its name, is 1. A symbolic dimension has
    the same size wherever it stands; one that is only ever first is 1, those of floats with
    four axes are 224 and all others 32, or else the next of several sizes until the model runs.

    Args:
        session: The model that they are for; it is run to find the sizes.
        count: Number of feeds.
        seed: The same seed gives the same feeds.

    Raises:
        DataError: An input is no tensor, or the model runs with none of the sizes.
    """
    sizes = find_runnable(session)
    read = partial(_feeds, session.inputs, sizes, count, seed)
    return Samples("synthetic", count, read, synthetic=True)


def find_runnable(session: Session) -> Sizes:
    """Return a size for each free dimension with which the model runs.

    Raises:
        DataError: An input is no tensor, or none of the sizes tried runs.
    """
    for port in session.inputs:
        if port.dtype is None or (port.dtype.kind == "V" and not is_float(port.dtype)):
            raise DataError(
                f"input {port.name!r} is {port.type}, for which nothing can be made up"
            )
    said = ""
    for sizes in _candidates(session.inputs):
        if _elements(session.inputs, sizes) > _MOST_ELEMENTS:
            continue
        try:
            session.run(_feed(session.inputs, sizes, np.random.default_rng(0)))
        except (DataError, ModelError) as error:
            said = said or str(error)
        else:
            return sizes
    raise DataError(f"made-up inputs do not run; give --data ({said or 'inputs too large'})")


def _candidates(inputs: Sequence[Port]) -> Iterator[Sizes]:
    """Yield sizes to try: all free dimensions alike first, then every mixture of a few."""
    keys = [key for port in inputs for key in _keys(port)]
    free = [key for key in dict.fromkeys(keys) if "+" not in key and not key.isdecimal()]
    later = {key for port in inputs for key in _keys(port)[1:]}
    batch = [key for key in free if key not in later]
    others = [key for key in free if key in later]
    single = dict.fromkeys(batch, 1)
    if not others:
        yield single
        yield from (dict.fromkeys(batch, size) for size in _LENGTHS if batch)
        return
    pixels = {key for port in inputs if _is_image(port) for key in _keys(port)}
    wanted = [_PIXELS if key in pixels else _LENGTHS for key in others]
    for alike in zip(*wanted, strict=True):
        yield single | dict(zip(others, alike, strict=True))
    for mixture in islice(product(*wanted), _MOST_TRIES):
        yield single | dict(zip(others, mixture, strict=True))


def _is_image(port: Port) -> bool:
    return len(port.shape) == _IMAGE_RANK and is_float(np.dtype(port.dtype))


def _keys(port: Port) -> tuple[str, ...]:
    """Name each dimension: its size, its symbol, or the input and the axis where it has none."""
    return tuple(
        f"{port.name}:{axis}" if dim is None or dim == "?" else str(dim)
        for axis, dim in enumerate(port.shape)
    )


def _shape(port: Port, sizes: Sizes) -> tuple[int, ...]:
    """Return the shape, adding up exporters' sums such as ``past_length + length``."""
    return tuple(
        sum(int(part) if part.isdecimal() else sizes.get(part, 1) for part in _parts(key))
        for key in _keys(port)
    )


def _parts(key: str) -> list[str]:
    return re.split(r"\s*\+\s*", key)


def _elements(inputs: Sequence[Port], sizes: Sizes) -> int:
    return sum(int(np.prod(_shape(port, sizes), dtype=np.int64)) for port in inputs)


def _feeds(inputs: Sequence[Port], sizes: Sizes, count: int, seed: int, _: int) -> Iterator[Feed]:
    for place in range(count):
        yield _feed(inputs, sizes, np.random.default_rng((seed, place)))


def _feed(inputs: Sequence[Port], sizes: Sizes, random: np.random.Generator) -> Feed:
    return {port.name: _values(port, _shape(port, sizes), random) for port in inputs}


def _values(port: Port, shape: tuple[int, ...], random: np.random.Generator) -> Array:
    dtype = np.dtype(port.dtype)
    if dtype.kind == "O":
        return np.asarray(random.choice(_WORDS, size=shape), dtype=object)
    if is_float(dtype):
        return np.asarray(random.standard_normal(shape, dtype=np.float32)).astype(dtype)
    if dtype.kind == "b":
        return np.asarray(random.integers(0, 2, shape), dtype=bool)
    if shape[1:] == () or "mask" in port.name.lower():
        return np.ones(shape, dtype)
    return random.integers(0, 2, shape).astype(dtype)
