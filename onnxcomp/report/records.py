"""What a run did and what it cost, as data: what ``--json`` prints."""

from __future__ import annotations

import hashlib
from math import isfinite
from typing import TYPE_CHECKING, Any, Literal

import zstandard
from pydantic import Field, computed_field, field_serializer

from onnxcomp.benchmarking import Benchmark
from onnxcomp.report.environment import Environment
from onnxcomp.report.frozen import Record
from onnxcomp.report.graph_changes import GraphChange
from onnxcomp.validation import Metric, Validation
from onnxcomp.verdicts import Verdict

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

ZSTD_LEVEL = 3
"""What a download over HTTP with zstd content coding takes; it is the tool's default level."""


class FileRecord(Record):
    """A model as files.

    Attributes:
        path: Where it lies; None for one that is in memory.
        bytes: Bytes of the model and its data file.
        zstd_bytes: The same after zstd at level 3.
        sha256: Of the model file, and of the data file after it.
    """

    path: str | None
    bytes: int
    zstd_bytes: int
    sha256: str


def _compressor() -> zstandard.ZstdCompressor:
    """Return what compresses on all cores: with whatever number of threads, the same bytes."""
    return zstandard.ZstdCompressor(level=ZSTD_LEVEL, threads=-1)


def record_of_data(data: bytes) -> FileRecord:
    """Measure a model in memory."""
    return FileRecord(
        path=None,
        bytes=len(data),
        zstd_bytes=len(_compressor().compress(data)),
        sha256=hashlib.sha256(data).hexdigest(),
    )


def record_of_files(paths: Sequence[Path]) -> FileRecord:
    """Measure a model on disk: the model file first, then its data files."""
    digest = hashlib.sha256()
    compressed = 0
    for path in paths:
        compressor = _compressor().compressobj(size=path.stat().st_size)
        with path.open("rb") as file:
            while chunk := file.read(1 << 22):
                digest.update(chunk)
                compressed += len(compressor.compress(chunk))
        compressed += len(compressor.flush())
    return FileRecord(
        path=str(paths[0]),
        bytes=sum(path.stat().st_size for path in paths),
        zstd_bytes=compressed,
        sha256=digest.hexdigest(),
    )


class Step(Record):
    """What one pass of the pipeline did.

    Attributes:
        name: The pass; ``pass`` in JSON.
        options: All its options.
        status: Whether its result was kept.
        reason: Why it was not, or what else happened; empty where there is nothing to say.
        seconds: Wall time.
        tensors: A verdict on every weight-like tensor.
    """

    name: str = Field(alias="pass")
    options: dict[str, Any]
    status: Literal["applied", "nothing", "rolled_back"]
    reason: str
    seconds: float
    tensors: tuple[Verdict, ...]

    @property
    def changed(self) -> tuple[Verdict, ...]:
        """Verdicts on the tensors that were changed."""
        return tuple(each for each in self.tensors if each.verdict == "changed")


class Trial(Record):
    """One candidate of a search: a pipeline that was tried.

    Attributes:
        number: From 0, in the order in which they were tried.
        recipe: The pipeline, as `onnxcomp.pipeline.recipe` gives it.
        status: Whether it met the floor, missed it, or gave no result (it crashed, hung, or ran
            out of memory).
        reason: Why it was not kept, or what else there is to say; empty where there is nothing.
        bytes: Bytes of the result; None where there is none, as for all that follow.
        drop: By how much the metric dropped, or, without a metric, the share of rows that
            disagree; None where no floor is about either.
        strain: The most that it lost of what it may lose: above 1 it misses the floor; infinite
            (null in JSON) where that cannot be told.
        snr_db: The lowest SNR of the float outputs that are judged, in dB; infinite (null in
            JSON) where equal.
        latency_ratio: Median of result / original; None where it was not timed either.
        latency_low: Lower end of its 95 % interval.
        latency_high: Upper end of it.
        seconds: Wall time that it took.
        reach: Of a pass whose strength was out of reach, by its name, about the value that is not.
    """

    number: int
    recipe: dict[str, Any]
    status: Literal["kept", "missed", "failed"]
    reason: str
    bytes: int | None
    drop: float | None
    strain: float | None
    snr_db: float | None
    latency_ratio: float | None
    latency_low: float | None
    latency_high: float | None
    seconds: float
    reach: dict[str, float] = Field(default_factory=dict)

    @field_serializer("snr_db", "strain", when_used="json")
    def _finite_or_null(self, value: float | None) -> float | None:
        return value if value is not None and isfinite(value) else None


class Search(Record):
    """The candidates that a search tried.

    Attributes:
        goal: What was sought: size, speed, or both.
        floor: What a candidate must not miss, in words.
        trials: In the order in which they were tried.
        chosen: Number of the trial whose result left; None where nothing met the floor.
        front: Numbers of those of which none is better in bytes, latency and accuracy at once,
            the smallest first.
    """

    goal: str
    floor: str
    trials: tuple[Trial, ...]
    chosen: int | None
    front: tuple[int, ...] = ()


class Report(Record):
    """What a run did and what it cost.

    Attributes:
        version: Of onnxcomp.
        source: The model that came.
        output: The model that left.
        steps: One for each pass.
        validation: One for each execution provider.
        metric: The task metric, where one was asked for.
        benchmark: One for each execution provider.
        search: The candidates that were tried, where the passes were searched for.
        missed: By how much the result missed the floor, in words; None where it did not.
        doubt: Why so few samples cannot tell that the floor is kept; None where they can.
        unchecked: Why accuracy was not checked, where a search had no data to do it with.
        graph: What became of the operators; None where nothing looked.
        recipe: The pipeline that the result carries, as decided, for `parse_recipe`; None where it
            carries none.
        environment: What this ran on.
    """

    version: str
    source: FileRecord
    output: FileRecord
    steps: tuple[Step, ...] = ()
    validation: tuple[Validation, ...] = ()
    metric: Metric | None = None
    benchmark: tuple[Benchmark, ...] = ()
    search: Search | None = None
    missed: str | None = None
    doubt: str | None = None
    unchecked: str | None = None
    graph: GraphChange | None = None
    recipe: dict[str, Any] | None = None
    environment: Environment | None = None

    @computed_field  # type: ignore[prop-decorator]
    @property
    def size_ratio(self) -> float:
        """Original bytes / result bytes: more is better."""
        return self.source.bytes / self.output.bytes

    @property
    def worst_snr_db(self) -> float | None:
        """The lowest SNR of the float outputs on any provider, in dB; None without any."""
        known = [each.worst_snr_db for each in self.validation if each.worst_snr_db is not None]
        return min(known, default=None)
