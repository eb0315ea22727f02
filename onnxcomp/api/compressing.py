"""The library call: a model and passes in, a smaller model and a report out."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import onnx

from onnxcomp.api.floors import doubt_of, missed_floor
from onnxcomp.api.measuring import (
    benchmarks_of,
    measured,
    metric_of,
    origin_of,
)
from onnxcomp.api.memory import Memory
from onnxcomp.api.settings import Settings
from onnxcomp.api.steps import Progress, carried_recipe, take_step
from onnxcomp.api.workbench import Workbench
from onnxcomp.errors import FloorError
from onnxcomp.graph import load_model, model_bytes, model_proto, save_model, save_unchanged
from onnxcomp.pipeline import Context
from onnxcomp.report import (
    Report,
    Step,
    environment,
    graph_change,
    record_of_files,
    report_html,
)
from onnxcomp.statistics import load_statistics
from onnxcomp.validation import Validation, validate

if TYPE_CHECKING:
    from collections.abc import Sequence

    from onnxcomp.graph import Model
    from onnxcomp.pipeline import Pass

DEFAULTS = Settings()

LOG = logging.getLogger("onnxcomp.steps")


@dataclass(frozen=True, eq=False)
class Compressed:
    """A compressed model and what it cost.

    Args:
        graph: The model as passes see it.
        report: What was done, and how close, fast and small the result is.
        source: The file or the bytes that the model came as, where nothing changed it: it leaves
            as the same bytes.
    """

    graph: Model
    report: Report
    source: Path | bytes | None = None

    @property
    def model(self) -> onnx.ModelProto:
        """The model as a message, for what comes next in a script.

        Raises:
            ModelError: It is larger than a message may be; use `save`.
        """
        if self.source is None:
            return model_proto(self.graph)
        return onnx.load_model_from_string(self.to_bytes())

    def to_bytes(self) -> bytes:
        """Return the bytes of the model file; all of it, where it came with data files.

        Raises:
            ModelError: The model is larger than a message may be; use `save`.
        """
        if self.source is None or self.graph.is_external:
            return model_bytes(self.graph)
        return self.source if isinstance(self.source, bytes) else self.source.read_bytes()

    def save(self, path: str | Path) -> Report:
        """Write the model, all of it or nothing, and return the report with the file in it.

        A model that nothing changed is copied, with its data files.

        Raises:
            ModelError: The folder cannot be written, ``path`` is no regular file, or a data file
                of a copy's is there with other content.
        """
        if self.source is None:
            files = save_model(self.graph, path)
        else:
            files = save_unchanged(self.source, self.graph, path)
        written = record_of_files(files)
        output = written.model_copy(update={"path": str(path)})
        return self.report.model_copy(update={"output": output})

    def _repr_html_(self) -> str:
        return report_html(self.report)


def compress(
    model: Any,
    passes: Sequence[Pass],
    *,
    against: Any = None,
    data: Any = None,
    statistics: str | Path | None = None,
    settings: Settings = DEFAULTS,
    memory: Path | None = None,
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
        against: The model that results are checked and timed against, where ``model`` is itself a
            result; None for ``model``.
        data: Inputs: whatever `onnxcomp.runtime.read_samples` takes. Passes calibrate on them,
            and the result is compared on them; None makes some up for the comparison only.
        statistics: A file that `onnxcomp statistics` made of this model, for passes to calibrate
            on; data is then for the comparison only.
        settings: How the result is checked and timed.
        memory: A folder for what passes measure of this very model and data, of use to later calls
            with other passes; it must be there.
        progress: Told what is being done and the share of it that is done.

    Raises:
        FloorError: The result misses the floor; ``compressed`` of the error is what was missed by.
        OnnxcompError: Something else is wrong; see `onnxcomp.errors`.
    """
    with Workbench() as bench:
        graph = load_model(model)
        first = model if against is None else against
        original, source = measured(graph if against is None else load_model(first), bench, first)
        origin, calibration = origin_of(original, source, data, settings)
        if data is None or statistics is not None or calibration is None:
            given = None
        else:
            given = calibration.held()
        known = None if statistics is None else load_statistics(Path(statistics), graph)
        context = Context(given, known, settings.seed, min_snr=settings.min_snr)
        result = graph
        steps: list[Step] = []
        validation: tuple[Validation, ...] = ()
        for place, one in enumerate(passes):
            if memory is not None:
                recall = Memory(memory, passes[:place]).recall
                context = replace(context, recall=recall)
            LOG.info("%s begins", one.name)
            outcome = take_step(
                one, result, origin=origin, context=context, bench=bench, progress=progress
            )
            LOG.info("%s: %s %s", one.name, outcome.step.status, outcome.step.reason)
            steps.append(outcome.step)
            result, validation = outcome.model, outcome.validation or validation
        is_same = result is graph and against is None
        runnable, output = (original, source) if is_same else measured(result, bench, None)
        report = Report(
            version=origin.version,
            source=source,
            output=output.model_copy(update={"path": None}),
            steps=tuple(steps),
            validation=validation,
            metric=metric_of(origin, runnable),
            graph=graph_change(graph, result),
            recipe=carried_recipe(result),
            environment=environment(settings.provider, settings.threads),
        )
        missed = missed_floor(report, settings)
        if missed is not None:
            report = report.model_copy(update={"missed": missed})
            raise FloorError(missed, Compressed(result, report))
        report = report.model_copy(update={"doubt": doubt_of(report, settings)})
        if not is_same:
            timed = benchmarks_of(origin, runnable, settings, progress)
            report = report.model_copy(update={"benchmark": timed})
    return Compressed(result, report, _bytes_of(model) if result is graph else None)


def _bytes_of(model: Any) -> Path | bytes | None:
    """Return a model as the file or the bytes that it came as; None for what came otherwise."""
    if isinstance(model, onnx.ModelProto):
        data: bytes = model.SerializeToString()
        return data
    if isinstance(model, bytes):
        return model
    return Path(model) if isinstance(model, str | Path) else None


def compare(
    original: Any,
    other: Any,
    *,
    data: Any = None,
    settings: Settings = DEFAULTS,
    progress: Progress = lambda _what, _share: None,
) -> Report:
    """Check and time a model against the one that it was made from, by whatever tool.

    Args:
        original: As for `compress`.
        other: A model with the original's inputs and outputs; likewise.
        data: As for `compress`.
        settings: What to check and time, and how.
        progress: Told what is being done and the share of it that is done.

    Raises:
        OnnxcompError: The original does not run, or the data does not fit it.
    """
    with Workbench() as bench:
        graphs = [load_model(each) for each in (original, other)]
        given = zip(graphs, (original, other), strict=True)
        runnables, records = zip(
            *(measured(graph, bench, each) for graph, each in given), strict=True
        )
        origin, _ = origin_of(runnables[0], records[0], data, settings)
        validation: tuple[Validation, ...] = ()
        if settings.validation and origin.samples is not None:
            validation = validate(
                runnables[0],
                runnables[1],
                origin.samples,
                settings.provider,
                settings.threads,
                progress=lambda share: progress("validating", share),
            )
        report = Report(
            version=origin.version,
            source=records[0],
            output=records[1],
            validation=validation,
            metric=metric_of(origin, runnables[1]),
            benchmark=benchmarks_of(origin, runnables[1], settings, progress),
            graph=graph_change(*graphs),
            recipe=carried_recipe(graphs[1]),
            environment=environment(settings.provider, settings.threads),
        )
        floor = {"missed": missed_floor(report, settings), "doubt": doubt_of(report, settings)}
        return report.model_copy(update=floor)
