"""Running a model over samples, one at a time, and handing out tensors from inside it."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from itertools import pairwise, repeat
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from onnxcomp.graph import expose, referring_bytes
from onnxcomp.runtime import open_session

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from threading import Lock

    import onnx_graphsurgeon as gs
    from numpy.typing import NDArray

    from onnxcomp.graph import Graph, Model
    from onnxcomp.runtime import Feed, Samples, Session
    from onnxcomp.statistics.relay import Start

    Place = tuple[gs.Tensor, Graph]

MOST_BYTES = 1 << 26
"""What all tensors of one run may take together; where they would take more, several are made."""

BYTES_A_FLOAT = 4

EXPOSED = "onnxcomp.watched."
"""Starts the name of an output; the identities of the tensor and of the scope follow."""


@dataclass(frozen=True)
class Sample:
    """What is known of a sample besides its values.

    Args:
        seed: Made from the values, so that it is the same in whatever order samples come.
        mask: The attention mask, shape (samples, places), where the model takes one.
    """

    seed: int
    mask: NDArray[Any] | None

    def random(self) -> np.random.Generator:
        """Return the sample's own source of randomness, from its start."""
        return np.random.default_rng(self.seed)


def describe(feed: Feed) -> Sample:
    """Return what is known of a sample."""
    seed = 0
    for name in sorted(feed):
        array = feed[name]
        data = array.tobytes() if array.dtype.kind != "O" else repr(array.tolist()).encode()
        seed = zlib.crc32(data, zlib.crc32(name.encode(), seed))
    masks = [
        array
        for name, array in feed.items()
        if "mask" in name.lower() and array.dtype.kind in "iub" and array.ndim == 2  # noqa: PLR2004
    ]
    return Sample(seed, masks[0] if len(masks) == 1 else None)


def portions(
    model: Model,
    wanted: Sequence[Sequence[Place]],
    samples: Samples,
    start: Start | None = None,
) -> list[slice]:
    """Cut wishes for tensors into runs of them whose tensors fit the memory together.

    Args:
        model: The model.
        wanted: Tensors that are needed at the same time, and the scopes that compute them.
        samples: The first one tells the sizes.
        start: What is fed in place of the first nodes.
    """
    session = _open(model, [place for places in wanted for place in places], "Shape", start)
    shapes = session.run(_known(next(iter(samples.batched(1))), session, start, 0))
    cuts, total = [0], 0
    for index, places in enumerate(wanted):
        names = {_name(place) for place in places}
        size = sum(BYTES_A_FLOAT * prod(int(each) for each in shapes[name]) for name in names)
        if total and total + size > MOST_BYTES:
            cuts.append(index)
            total = 0
        total += size
    return [slice(*pair) for pair in pairwise([*cuts, len(wanted)])]


def stream(
    model: Model,
    places: Sequence[Place],
    samples: Samples,
    start: Start | None,
    reading: Lock,
) -> Iterator[tuple[Sample, list[NDArray[Any]]]]:
    """Run a model over samples and yield the wanted tensors of each; none is kept.

    Sessions have one thread, so that results do not depend on the number of threads. A sample that
    nothing is needed of but what was kept is not read again.

    Args:
        model: The model.
        places: Tensors, and the scopes that compute them.
        samples: What is fed.
        start: What is fed in place of the first nodes.
        reading: Held while a sample is read: Python 3.11 parses headers of arrays in one thread
            at a time only.
    """
    session = _open(model, places, "Identity", start)
    kept: Sequence[Sample] = ()
    if start is not None and all(port.name in start.tensors for port in session.inputs):
        kept = start.samples
    feeds = enumerate(repeat({}, len(kept)) if kept else samples.batched(1))
    while True:
        with reading:
            number, feed = next(feeds, (-1, {}))
            given = _known(feed, session, start, number) if number >= 0 else {}
        if number < 0:
            return
        found = session.run(given)
        yield kept[number] if kept else describe(feed), [found[_name(place)] for place in places]


def _known(feed: Feed, session: Session, start: Start | None, number: int) -> Feed:
    """Return all that the nodes that remain read, and nothing else."""
    feed = feed if start is None else feed | start.feed(number)
    return {port.name: feed[port.name] for port in session.inputs}


def _name(place: Place) -> str:
    # A branch may read a tensor from outside, which then counts where the branch is taken.
    tensor, scope = place
    return f"{EXPOSED}{id(tensor)}.{id(scope)}"


def _open(model: Model, places: Sequence[Place], how: str, start: Start | None) -> Session:
    named = {_name(place): place for place in places}
    given = {}
    if start is not None:
        given = {name: (each, *start.kinds[name]) for name, each in start.tensors.items()}
    data, folder = referring_bytes(expose(model, named, how, given))
    return open_session(data, threads=1, label="the model", folder=folder)
