"""Is the result faster? Ratios to the original, measured side by side in one process.

A shared machine speeds up and slows down under a benchmark's feet. So nothing here is an absolute
time: in every round the original, the result, and the original a second time each run once in a
shuffled order, a ratio is taken within the round, and the second original is the control that
shows what the machine's noise alone would make of it.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice, permutations
from math import ceil, inf
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict

from onnxcomp.errors import OptionError
from onnxcomp.intervals import Interval, interval_of
from onnxcomp.runtime.memory import peak_memory
from onnxcomp.runtime.ports import check_outputs
from onnxcomp.runtime.samples import Feed, Samples
from onnxcomp.runtime.sessions import Session, open_session

_LEAST_PAIRS, _FEW_PAIRS = 30, 12
_FEWEST_PAIRS = 3
_SLOW_SECONDS = 0.1
_LEAST_SECONDS = 0.002
_WARM_UPS = 3
_FEEDS = 4
_LOADS = 5
_BLOCKS = 6
_SEED = 0

Clock = Literal["wall", "cpu"]


class PeakMemory(BaseModel):
    """Peak resident memory of a fresh process that loads a model and runs it once, in bytes.

    Attributes:
        original: Of the original.
        result: Of the result.
    """

    model_config = ConfigDict(frozen=True, defer_build=True)

    original: int
    result: int


class Benchmark(BaseModel):
    """One model's cost over another's; every ratio is result / original, so less is better.

    Attributes:
        provider: The execution provider, as it was asked for.
        threads: Threads of one run; 0 where it was left to ONNX Runtime.
        pairs: Rounds measured.
        latency_ratio: Ratio of the wall-clock times of a run.
        cpu_ratio: Ratio of the CPU times of a run: of the calling thread on the CPU provider with
            one thread, else of the whole process.
        control: As ``latency_ratio``, of the original in a second session over itself.
        cpu_control: As ``cpu_ratio``, likewise.
        latency_ratios: What ``latency_ratio`` is the median of, one for each round.
        control_ratios: Likewise of ``control``.
        load_ratio: Ratio of the CPU times of loading, from interleaved loads.
        peak_memory: Of both models.
    """

    model_config = ConfigDict(frozen=True, defer_build=True)

    provider: str
    threads: int
    pairs: int
    latency_ratio: Interval
    cpu_ratio: Interval
    control: Interval
    cpu_control: Interval
    latency_ratios: tuple[float, ...]
    control_ratios: tuple[float, ...]
    load_ratio: float
    peak_memory: PeakMemory


def benchmark(
    original: bytes | Path,
    result: bytes | Path,
    samples: Samples,
    provider: str = "cpu",
    threads: int = 1,
    *,
    pairs: int = _LEAST_PAIRS,
    seconds: float = inf,
    progress: Callable[[float], None] | None = None,
) -> Benchmark:
    """Time two models against each other.

    Samples are fed one at a time where the model leaves the batch open. A run shorter than 2 ms
    is repeated until the measurement is not. Where the time is up there are fewer rounds, three
    at least, and intervals are as wide as that makes them.

    Args:
        original: A serialised model, or the path of a file.
        result: The same, of the result; it has the original's inputs.
        samples: What both are fed; the first four feeds are used in turn.
        provider: The execution provider.
        threads: Threads of one run; 0 leaves it to ONNX Runtime.
        pairs: Rounds; at least 30.
        seconds: After so long, but for three rounds, no further one begins.
        progress: Called with the share that is done, from 0 to 1.

    Raises:
        OptionError: ``pairs`` is below 30.
        ModelError: A model does not load or run, or the declared shapes of an output that both
            have contradict each other.
        DataError: The samples do not fit the models.
        ProviderError: The provider is not installed here.
    """
    if pairs < _LEAST_PAIRS:
        raise OptionError(f"pairs must be at least {_LEAST_PAIRS}, got {pairs}")
    feeds = list(islice(samples.batched(1), _FEEDS))
    with TemporaryDirectory(prefix="onnxcomp-") as folder:
        first = _file(original, Path(folder, "original.onnx"))
        second = _file(result, Path(folder, "result.onnx"))
        trial = _Trial((first, second, first), provider, threads, time.perf_counter() + seconds)
        blocks = trial.blocks(feeds, pairs, progress=progress)
        load_ratio = trial.load_ratio()
        memory = PeakMemory(
            original=peak_memory(first, feeds[0], provider, threads),
            result=peak_memory(second, feeds[0], provider, threads),
        )
    latency_ratios = _ratios(blocks, 1, "wall")
    control_ratios = _ratios(blocks, 2, "wall")
    return Benchmark(
        provider=provider,
        threads=threads,
        pairs=len(list(chain.from_iterable(blocks))),
        latency_ratio=interval_of(latency_ratios),
        cpu_ratio=interval_of(_ratios(blocks, 1, "cpu")),
        control=interval_of(control_ratios),
        cpu_control=interval_of(_ratios(blocks, 2, "cpu")),
        latency_ratios=tuple(chain.from_iterable(latency_ratios)),
        control_ratios=tuple(chain.from_iterable(control_ratios)),
        load_ratio=load_ratio,
        peak_memory=memory,
    )


def time_ratio(
    original: bytes | Path,
    result: bytes | Path,
    feeds: Sequence[Feed],
    provider: str = "cpu",
    threads: int = 1,
    *,
    seconds: float = inf,
) -> Interval:
    """Return the ratio of the times of two models' runs, and nothing else.

    For parts of a model or many candidates: `benchmark` says more. Models that take long, whose
    times vary less, are run less often. One thread on the CPU is timed by what it used of it,
    which a busy machine does not change; all else by the clock.

    Args:
        original: A serialised model, or the path of a file.
        result: The same; it has the original's inputs and outputs.
        feeds: What both are fed in turn.
        provider: The execution provider.
        threads: Threads of one run; 0 leaves it to ONNX Runtime.
        seconds: After so long, but for three rounds, no further one begins.
    """
    until = time.perf_counter() + seconds
    with TemporaryDirectory(prefix="onnxcomp-") as folder:
        first = _file(original, Path(folder, "original.onnx"))
        second = _file(result, Path(folder, "result.onnx"))
        trial = _Trial((first, second), provider, threads, until)
        blocks = trial.blocks(feeds, _LEAST_PAIRS, slow_pairs=_FEW_PAIRS)
    clock: Clock = "cpu" if provider == "cpu" and threads == 1 else "wall"
    return interval_of(_ratios(blocks, 1, clock))


@dataclass(frozen=True)
class _Times:
    """Seconds of one measurement."""

    wall: float
    cpu: float


_Round = list[_Times]
"""The times of each model, in the order in which they are given."""


@dataclass(frozen=True)
class _Trial:
    """The original, the result and perhaps the original again, to be timed in turn."""

    models: tuple[Path, ...]
    provider: str
    threads: int
    until: float

    @property
    def is_over(self) -> bool:
        """Whether the time is up, on the clock of the performance counter."""
        return time.perf_counter() > self.until

    def blocks(
        self,
        feeds: Sequence[Feed],
        pairs: int,
        *,
        slow_pairs: int | None = None,
        progress: Callable[[float], None] | None = None,
    ) -> list[list[_Round]]:
        """Return the times of all in every round, a block for each time that they were loaded.

        Where a session's weights come to lie in memory makes it some percent faster or slower for
        as long as it lives. So all are loaded anew, in every order that there is.

        Args:
            feeds: What all are fed, one in each block.
            pairs: Rounds.
            slow_pairs: Rounds where one takes long; as many if not given.
            progress: Called with the share that is done.
        """
        shuffle = Random(_SEED).shuffle  # noqa: S311  # an order, not a secret
        blocks: list[list[_Round]] = []
        orders = list(permutations(range(len(self.models))))
        done = 0
        for place in range(_BLOCKS):
            if done >= _FEWEST_PAIRS and self.is_over:
                break
            feed, block = feeds[place % len(feeds)], []
            for times in self._block(orders[place % len(orders)], feed, shuffle):
                block.append(times)
                done += 1
                if slow_pairs is not None and times[0].wall > _SLOW_SECONDS:
                    pairs = slow_pairs
                if progress is not None:
                    progress(done / pairs)
                if done >= (_FEWEST_PAIRS if self.is_over else pairs * (place + 1) // _BLOCKS):
                    break
            blocks.append(block)
        return blocks

    def _block(
        self,
        loading: Sequence[int],
        feed: Feed,
        shuffle: Callable[[list[int]], None],
    ) -> Iterator[_Round]:
        """Load all in the order of ``loading``, and yield rounds without end."""
        sessions = {who: self._open(who) for who in loading}
        check_outputs(sessions[0], sessions[1])
        feeds = {who: session.encoded(feed) for who, session in sessions.items()}
        sessions = {who: session.bare for who, session in sessions.items()}
        repeats = max(_repeats(sessions[who], feeds[who]) for who in sessions)
        while True:
            order = sorted(sessions)
            shuffle(order)
            times = {who: self._measure(sessions[who], feeds[who], repeats) for who in order}
            yield [times[who] for who in sorted(times)]

    def load_ratio(self) -> float:
        """Return the median ratio of the CPU times of interleaved loads of the first two."""
        ratios = [self._load(1) / self._load(0)]
        while len(ratios) < _LOADS and not self.is_over:
            ratios.append(self._load(1) / self._load(0))
        return float(np.median(ratios))

    def _open(self, who: int) -> Session:
        return open_session(self.models[who], self.provider, self.threads)

    def _load(self, who: int) -> float:
        started = time.process_time()
        self._open(who)
        return time.process_time() - started

    def _measure(self, session: Session, feed: Feed, repeats: int) -> _Times:
        is_one_thread = self.threads == 1 and session.provider == "cpu"
        clock = time.thread_time if is_one_thread else time.process_time
        cpu, wall = clock(), time.perf_counter()
        for _ in range(repeats):
            session.run(feed)
        wall, cpu = time.perf_counter() - wall, clock() - cpu
        return _Times(wall, cpu)


def _repeats(session: Session, feed: Feed) -> int:
    """Warm a session up, and return how many runs make a measurement long enough."""
    fastest = inf
    for _ in range(_WARM_UPS):
        started = time.perf_counter()
        session.run(feed)
        fastest = min(fastest, time.perf_counter() - started)
        if fastest > _SLOW_SECONDS:
            break
    return max(1, ceil(_LEAST_SECONDS / fastest))


def _file(model: bytes | Path, place: Path) -> Path:
    """Put a model on disk, so that both are loaded the way in which a user loads them."""
    if isinstance(model, Path):
        return model
    place.write_bytes(model)
    return place


def _ratios(blocks: Sequence[Sequence[_Round]], who: int, clock: Clock) -> list[list[float]]:
    """Return a model's times over the original's, block by block."""
    return [[getattr(one[who], clock) / getattr(one[0], clock) for one in each] for each in blocks]
