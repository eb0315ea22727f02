"""The library call: a model and passes in, a smaller model and a report out."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onnxcomp.api.settings import Settings
from onnxcomp.api.steps import Origin, Progress, take_step
from onnxcomp.api.workbench import Workbench, complaint
from onnxcomp.benchmarking import benchmark
from onnxcomp.errors import FloorError
from onnxcomp.graph import load_model, model_bytes, model_proto, save_model
from onnxcomp.pipeline import Context
from onnxcomp.report import FileRecord, Report, report_html
from onnxcomp.runtime import open_session, samples_for
from onnxcomp.validation import Metric, evaluate, load_evaluator

if TYPE_CHECKING:
    from collections.abc import Sequence

    import onnx

    from onnxcomp.graph import Model
    from onnxcomp.pipeline import Pass

DEFAULTS = Settings()


@dataclass(frozen=True, eq=False)
class Compressed:
    """A compressed model and what it cost.

    Args:
        graph: The model as passes see it.
        report: What was done, and how close, fast and small the result is.
    """

    graph: Model
    report: Report

    @property
    def model(self) -> onnx.ModelProto:
        """The model as a message, for what comes next in a script.

        Raises:
            ModelError: It is larger than a message may be; use `save`.
        """
        return model_proto(self.graph)

    def to_bytes(self) -> bytes:
        """Return the bytes of the model file.

        Raises:
            ModelError: The model is larger than a message may be; use `save`.
        """
        return model_bytes(self.graph)

    def save(self, path: str | Path) -> Report:
        """Write the model, all of it or nothing, and return the report with the file in it.

        Raises:
            ModelError: The folder cannot be written.
        """
        written = FileRecord.of_files(save_model(self.graph, path))
        output = written.model_copy(update={"path": str(path)})
        return self.report.model_copy(update={"output": output})

    def _repr_html_(self) -> str:
        return report_html(self.report)


def compress(
    model: Any,
    passes: Sequence[Pass],
    *,
    data: Any = None,
    settings: Settings = DEFAULTS,
    progress: Progress = lambda _what, _share: None,
) -> Compressed:
    """Run passes over a model; check and time the result against the original.

    A step is undone, and its record says so, if its result is not valid, not finite where the
    original is, not smaller although its pass promises it, or if ONNX Runtime's optimiser changes
    what it computes. Accuracy by itself undoes nothing; ``settings`` may set a floor.

    Args:
        model: A path, bytes, `onnx.ModelProto`, `onnx_graphsurgeon.Graph`, `onnx_ir.Model` or
            PyTorch `ONNXProgram`; it is not changed.
        passes: Applied one after the other.
        data: Inputs: whatever `onnxcomp.runtime.read_samples` takes; None makes some up.
        settings: How the result is checked and timed.
        progress: Told what is being done and the share of it that is done.

    Raises:
        FloorError: The result misses the floor; ``compressed`` of the error is what was missed by.
        OnnxcompError: Something else is wrong; see `onnxcomp.errors`.
    """
    evaluator = _evaluator(settings)
    with Workbench() as bench:
        graph = load_model(model)
        runnable, source = _measured(graph, bench, model)
        origin = _origin(runnable, source, data, settings)
        result, steps, validation = graph, [], ()
        for one in passes:
            outcome = take_step(
                one, result, origin, Context(origin.samples, settings.seed), bench, progress
            )
            steps.append(outcome.step)
            result, validation = outcome.model, outcome.validation or validation
        runnable, output = _measured(result, bench, model if result is graph else None)
        report = Report(
            version=origin.version,
            source=source,
            output=output.model_copy(update={"path": None}),
            steps=tuple(steps),
            validation=validation,
        )
        if evaluator is not None:
            values = [
                evaluate(each, evaluator, settings.provider[0], settings.threads)
                for each in (origin.model, runnable)
            ]
            metric = Metric(original=values[0], result=values[1])
            report = report.model_copy(update={"metric": metric})
        _require(Compressed(result, report), settings)
        if settings.bench and result is not graph:
            report = report.model_copy(
                update={"benchmark": _benchmarks(origin, runnable, settings, progress)}
            )
    return Compressed(result, report)


def _evaluator(settings: Settings) -> Any:
    if isinstance(settings.evaluate, str):
        return load_evaluator(settings.evaluate)
    return settings.evaluate


def _measured(graph: Model, bench: Workbench, given: Any) -> tuple[bytes | Path, FileRecord]:
    """Return a model as ONNX Runtime opens it, and its size; as it was given where it is a file."""
    if isinstance(given, str | Path):
        path = Path(given)
        return path, FileRecord.of_files([path, *graph.data_paths])
    runnable = bench.runnable(graph)
    if isinstance(runnable, bytes):
        return runnable, FileRecord.of_bytes(runnable)
    return runnable, FileRecord.of_files(sorted(runnable.parent.iterdir(), reverse=True))


def _origin(runnable: bytes | Path, source: FileRecord, data: Any, settings: Settings) -> Origin:
    """Gather what every step is checked against; the original runs here for the first time."""
    samples = None
    if settings.validation or settings.bench:
        session = open_session(runnable, settings.provider[0], settings.threads)
        samples = samples_for(session, data, settings.samples, settings.seed)
    return Origin(
        model=runnable,
        is_valid=complaint(runnable) is None,
        sha256=source.sha256,
        version=version("onnxcomp"),
        samples=samples,
        validate=settings.validation,
        providers=settings.provider,
        threads=settings.threads,
    )


def _require(compressed: Compressed, settings: Settings) -> None:
    """Raise `FloorError` if the result misses the floor."""
    report = compressed.report
    if settings.max_drop is not None and report.metric is not None:
        allowed = settings.allowed_drop(report.metric.original)
        if report.metric.drop > allowed:
            raise FloorError(
                f"the metric dropped by {report.metric.drop:.4g} (from "
                f"{report.metric.original:.4g} to {report.metric.result:.4g}), more than "
                f"{allowed:.4g}; ask for more bits or leave layers out with --exclude",
                compressed,
            )
    if settings.min_snr is not None:
        for each in report.validation:
            worst = each.worst_snr_db
            if worst is not None and worst < settings.min_snr:
                raise FloorError(
                    f"the outputs' SNR on {each.provider} is {worst:.1f} dB, less than "
                    f"{settings.min_snr:g}; ask for more bits or leave layers out with --exclude",
                    compressed,
                )


def _benchmarks(
    origin: Origin, runnable: bytes | Path, settings: Settings, progress: Progress
) -> tuple[Any, ...]:
    if origin.samples is None:
        return ()
    return tuple(
        benchmark(
            origin.model,
            runnable,
            origin.samples,
            provider,
            settings.threads or 1,
            progress=lambda share: progress("timing", share),
        )
        for provider in settings.provider
    )
