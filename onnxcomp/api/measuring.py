"""What both commands that compress and commands that compare do with two models."""

from __future__ import annotations

from importlib.metadata import version
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onnxcomp.api.steps import Origin, Progress
from onnxcomp.api.workbench import Workbench, complaint
from onnxcomp.benchmarking import Benchmark, benchmark
from onnxcomp.report import FileRecord, record_of_data, record_of_files
from onnxcomp.runtime import open_session, samples_for
from onnxcomp.validation import Metric, evaluate, load_evaluator

if TYPE_CHECKING:
    from collections.abc import Callable

    from onnxcomp.api.settings import Settings
    from onnxcomp.graph import Model
    from onnxcomp.runtime import Samples

HELD_OUT = 5
"""One sample of so many is kept from the passes, where they are to be kept apart."""


def measured(graph: Model, bench: Workbench, given: Any) -> tuple[bytes | Path, FileRecord]:
    """Return a model as ONNX Runtime opens it, and its size; a file is opened where it is."""
    if isinstance(given, str | Path):
        path = Path(given)
        return path, record_of_files([path, *graph.data_paths])
    runnable = bench.runnable(graph)
    if isinstance(runnable, bytes):
        return runnable, record_of_data(runnable)
    record = record_of_files([runnable, *(runnable.parent.glob("*.data"))])
    return runnable, record.model_copy(update={"path": None})


def origin_of(
    runnable: bytes | Path, source: FileRecord, data: Any, settings: Settings
) -> tuple[Origin, Samples | None]:
    """Gather what every result is checked against; the original runs here for the first time.

    Returns:
        That, and the samples that passes may look at: others than those where some are held out.

    Raises:
        DataError: The samples do not fit the model.
        ModelError: The original does not run.
        OptionError: There is no such evaluator.
        ProviderError: A provider is not installed here.
    """
    samples = None
    if data is not None or settings.validation or settings.bench:
        session = open_session(runnable, settings.provider[0], settings.threads)
        samples = samples_for(session, data, settings.samples, settings.seed)
    calibration = samples
    if settings.hold_out and data is not None and samples is not None:
        calibration, samples = samples.parted(HELD_OUT)
    if settings.calibration is not None and calibration is not None:
        calibration = calibration.spread(settings.calibration)
    if settings.compared is not None and samples is not None:
        samples = samples.spread(settings.compared)
    origin = Origin(
        model=runnable,
        is_valid=complaint(runnable) is None,
        sha256=source.sha256,
        version=version("onnxcomp"),
        samples=samples,
        evaluator=evaluator_of(settings),
        validate=settings.validation,
        providers=settings.provider,
        threads=settings.threads,
    )
    return origin, calibration


def evaluator_of(settings: Settings) -> Callable[..., Any] | None:
    """Return the task metric that is asked for, if one is.

    Raises:
        OptionError: There is no such evaluator.
    """
    given = settings.evaluate
    return load_evaluator(given) if isinstance(given, str) else given


def metric_of(origin: Origin, runnable: bytes | Path) -> Metric | None:
    """Evaluate both models by the task metric, where one is asked for."""
    evaluator = origin.evaluator
    if evaluator is None:
        return None
    original, result = (
        evaluate(model, evaluator, origin.providers[0], origin.threads)
        for model in (origin.model, runnable)
    )
    return Metric.of(original, result)


def benchmarks_of(
    origin: Origin, runnable: bytes | Path, settings: Settings, progress: Progress
) -> tuple[Benchmark, ...]:
    """Time the result against the original on every provider, where that is asked for."""
    if not settings.bench or origin.samples is None:
        return ()
    return tuple(
        benchmark(
            origin.model,
            runnable,
            origin.samples,
            provider,
            settings.threads or 1,
            seconds=(settings.bench_seconds or inf) / len(settings.provider),
            progress=lambda share: progress("timing", share),
        )
        for provider in settings.provider
    )
