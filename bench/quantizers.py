"""The ways to quantize that quantize_model.py compares: our pass's modes, and ONNX Runtime's own.

Each result is made in a fresh process, so that its peak memory is its own; the libraries that
are imported here and there count in every one alike.
"""

import platform
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import redirect_stdout
from multiprocessing import get_context
from pathlib import Path
from time import perf_counter
from typing import Any, NamedTuple

import onnx
from onnxruntime import quantization as ort
from onnxruntime.quantization.shape_inference import quant_pre_process

from onnxcomp import Settings, compress
from onnxcomp.passes import Quantize, Simplify
from onnxcomp.runtime import open_session, read_samples
from onnxcomp.runtime.memory import own_peak

PER_CHANNEL_OPSET = 13
"""Before it DequantizeLinear has no axis, and ONNX Runtime writes one all the same."""

WEIGHED = ("MatMul", "Gemm", "LSTM")
"""What dynamic quantization makes faster; a Conv becomes slower by it."""


class Task(NamedTuple):
    """What a process of its own is to make.

    Args:
        form: The row that is asked for.
        model: What it is made of.
        target: Where it is written.
        data: Calibration data.
        samples: Use the first so many of them.
        threads: Threads of a run.
        simplify: Whether our pass is to find the model simplified.
        most_bytes: Memory that the process may take.
    """

    form: str
    model: Path
    target: Path
    data: str
    samples: int | None
    threads: int
    simplify: bool
    most_bytes: int


class Made(NamedTuple):
    """What making a result took, and how it went.

    Args:
        seconds: Wall time of the making; reading, checking and writing by us is not counted.
        peak_bytes: Most memory that the process took, for checking too.
        status: Of the last step, for ours; else "made".
        notes: What had to be done otherwise than asked.
    """

    seconds: float
    peak_bytes: int
    status: str
    notes: tuple[str, ...]


def made_apart(task: Task) -> Made:
    """Make a result in a fresh process.

    Raises:
        Exception: Whatever the making raises, or `BrokenProcessPool` where the process ended.
    """
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(make, task).result()


def make(task: Task) -> Made:
    """Make a result in this process."""
    limit_memory(task.most_bytes)
    making = RIVALS.get(task.form, by_onnxcomp)
    # Some tell their progress on stdout, where the table is to come.
    with redirect_stdout(sys.stderr):
        return making(task)


def limit_memory(most: int) -> None:
    """Let what asks for too much fail, rather than everything else on the machine."""
    if platform.system() == "Linux":
        import resource  # noqa: PLC0415 - not on Windows

        resource.setrlimit(resource.RLIMIT_DATA, (most, most))


def by_onnxcomp(task: Task) -> Made:
    """Run our pass in one of its modes; "simplified" is what it starts from, alone."""
    first = (Simplify(),) if task.simplify else ()
    passes = first if task.form == "simplified" else (*first, Quantize(mode=task.form))
    settings = Settings(samples=task.samples, threads=task.threads, bench=False)
    done = compress(task.model, passes, data=task.data, settings=settings)
    done.save(task.target)
    steps = done.report.steps
    reason = (steps[-1].reason,) if steps[-1].reason else ()
    return Made(sum(each.seconds for each in steps), own_peak(), steps[-1].status, reason)


def static(method: str) -> Callable[[Task], Made]:
    """Return what calibrates as ONNX Runtime's documentation advises for x86 with VNNI."""

    def quantize(task: Task, prepared: Path) -> None:
        ort.quantize_static(
            prepared,
            task.target,
            Reader(task),
            per_channel=True,
            activation_type=ort.QuantType.QUInt8,
            weight_type=ort.QuantType.QInt8,
            calibrate_method=ort.CalibrationMethod[method],
        )

    return lambda task: by_onnxruntime(task, quantize)


def dynamic(op_types: tuple[str, ...] | None) -> Callable[[Task], Made]:
    """Return what quantizes activations when it runs, in so many operators or by default."""

    def quantize(task: Task, prepared: Path) -> None:
        ort.quantize_dynamic(
            prepared,
            task.target,
            op_types_to_quantize=op_types,
            per_channel=True,
            weight_type=ort.QuantType.QInt8,
        )

    return lambda task: by_onnxruntime(task, quantize)


def by_onnxruntime(task: Task, quantize: Callable[[Task, Path], None]) -> Made:
    """Prepare a model as ONNX Runtime's quantizers want it, and let one of them run."""
    started = perf_counter()
    prepared = task.target.with_suffix(".prepared.onnx")
    try:
        notes = prepare(task.model, prepared)
        quantize(task, prepared)
    finally:
        prepared.unlink(missing_ok=True)
    return Made(perf_counter() - started, own_peak(), "made", tuple(notes))


def prepare(model: Path, prepared: Path) -> list[str]:
    """Let ONNX Runtime prepare a model for its quantizers; return what went otherwise."""
    notes, source = [], model
    proto = onnx.load(model)
    opset = next(each.version for each in proto.opset_import if each.domain in {"", "ai.onnx"})
    if opset < PER_CHANNEL_OPSET:
        notes.append(f"opset raised from {opset} to {PER_CHANNEL_OPSET}")
        source = prepared
        onnx.save(onnx.version_converter.convert_version(proto, PER_CHANNEL_OPSET), source)
    try:
        quant_pre_process(source, prepared)
    except Exception as error:  # noqa: BLE001 - it raises bare exceptions and assertions
        notes.append(f"without symbolic shapes: {first_line(error)}")
        quant_pre_process(source, prepared, skip_symbolic_shape=True)
    return notes


def first_line(error: BaseException) -> str:
    """Return the kind of an error and what it says first."""
    said = str(error).strip().partition("\n")[0]
    return f"{type(error).__name__}: {said}"[:160]


class Reader(ort.CalibrationDataReader):  # type: ignore[misc]
    """Calibration data as ONNX Runtime's quantizers read it."""

    def __init__(self, task: Task) -> None:
        session = open_session(task.model, threads=task.threads)
        # Histograms want arrays of one shape, and the last batch may be a smaller one.
        self.feeds = iter(read_samples(task.data, session.inputs, task.samples).batched(1))

    def get_next(self) -> dict[str, Any] | None:
        """Return the next feed; None after the last."""
        return next(self.feeds, None)


RIVALS: dict[str, Callable[[Task], Made]] = {
    "ort-static-minmax": static("MinMax"),
    "ort-static-percentile": static("Percentile"),
    "ort-static-entropy": static("Entropy"),
    "ort-dynamic": dynamic(WEIGHED),
    "ort-dynamic-default": dynamic(None),
}
