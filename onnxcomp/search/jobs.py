"""One candidate, tried in a process of its own: it may crash, hang or run out of memory.

That process reads a pickled `Job` from stdin and ends when stdin does, so that no trial outlives
the search that asked for it. What ended for a reason that may not come again, killed or without
room on the disk or in memory, is not written down: the next search tries it again.
"""

from __future__ import annotations

import os
import pickle
import re
import signal
import subprocess
import sys
from collections import deque
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from shutil import rmtree
from tempfile import TemporaryDirectory
from threading import Thread
from time import monotonic
from typing import TYPE_CHECKING, Any

from onnxcomp.api import OutputFloor, Settings, compress, evaluator_of
from onnxcomp.benchmarking import time_ratio
from onnxcomp.errors import ModelError, OnnxcompError, ReachError
from onnxcomp.pipeline import parse_recipe
from onnxcomp.report import Trial
from onnxcomp.runtime import open_session, samples_for
from onnxcomp.search.floors import loss_of
from onnxcomp.search.shelf import Shelf
from onnxcomp.validation import Metric, evaluate

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]

if TYPE_CHECKING:
    from collections.abc import Sequence

    from onnxcomp.intervals import Interval
    from onnxcomp.pipeline import Pass
    from onnxcomp.report import Report
    from onnxcomp.runtime.evaluation import Score

POLL_SECONDS = 0.2

TIMED_FEEDS = 4

BEGUN = "begun"
"""Name of the file by which a process says that it has its job."""

TRANSIENT = 75
"""Exit code of a process that failed for want of room or memory (EX_TEMPFAIL of sysexits.h)."""

NO_MEMORY = re.compile("(?i)bad_?alloc|failed to allocate|cannot allocate|out of memory")
"""How ONNX Runtime says so, which has no error of its own for it."""

LAST_LINES = 20

TIMED_SHARE = 0.25
"""The most of the time that a search has left that timing a candidate may take."""


@dataclass(frozen=True)
class Job:
    """A candidate to try.

    Args:
        model: The original.
        score: What the evaluator makes of the original; None where there is none.
        data: Samples; None where there are none.
        recipe: The pipeline, as plain data.
        settings: How results are checked, and what they must not miss.
        floors: What single outputs must not miss besides.
        shelf: Folder of what is finished.
        running: A folder that is there as long as the search is.
        seconds: Time that it may take.
        left: Time that the search has left, in seconds.
        slack: By how much more than the floor it may lose and still be timed.
    """

    model: Path
    score: Score | None
    data: Path | None
    recipe: dict[str, Any]
    settings: Settings
    floors: tuple[OutputFloor, ...]
    shelf: Path
    running: Path
    seconds: float
    left: float
    slack: float


def run_isolated(job: Job) -> Trial:
    """Try a candidate in a process of its own, and return what it came to.

    Whatever becomes of that process is a failed trial and nothing else. A trial that the end of
    the search cuts short is not written down.
    """
    shelf, passes = Shelf(job.shelf), parse_recipe(job.recipe)
    started = monotonic()
    with TemporaryDirectory(prefix="onnxcomp-") as scratch:
        process = _started(job, scratch)
        said = _Listening(process)
        while process.poll() is None:
            try:
                process.wait(POLL_SECONDS)
            except subprocess.TimeoutExpired:
                if monotonic() - started > job.seconds or not job.running.is_dir():
                    _end(process)
                    return failed(job, "took longer than the search had left", started)
        _end(process)
        last = said.last_line()
        has_begun = Path(scratch, BEGUN).is_file()
    found = shelf.trial(passes)
    if found is None:
        found = failed(job, _fate(process.returncode, last), started)
        # What never began, or may not come again, says nothing of the candidate.
        if has_begun and process.returncode >= 0 and process.returncode != TRANSIENT:
            shelf.note(passes, found)
    return found


def failed(job: Job, error: OnnxcompError | str, started: float) -> Trial:
    """Return the trial of a candidate that gave no result."""
    return Trial(
        number=0,
        recipe=job.recipe,
        status="failed",
        reason=str(error),
        bytes=None,
        drop=None,
        strain=None,
        snr_db=None,
        latency_ratio=None,
        latency_low=None,
        latency_high=None,
        seconds=monotonic() - started,
        reach={error.name: error.nearest} if isinstance(error, ReachError) else {},
    )


def attempt(job: Job) -> Trial:
    """Try a candidate in this process, from the longest beginning that is finished.

    Raises:
        OnnxcompError: A pass cannot do what is asked of it, or the result is not valid.
    """
    started = monotonic()
    shelf, passes = Shelf(job.shelf), parse_recipe(job.recipe)
    path, report = _made(job, shelf, passes, is_careful=False)
    if any(each.problem for each in report.validation):
        # It may be one of the first passes, whose results were not looked at by themselves.
        shelf.forget(passes)
        path, report = _made(job, shelf, passes, is_careful=True)
    evaluator = evaluator_of(job.settings)
    if evaluator is not None and job.score is not None:
        found = evaluate(path, evaluator, job.settings.provider[0], job.settings.threads)
        metric = Metric.of(job.score, found)
        report = report.model_copy(update={"metric": metric})
    problem = next((each.problem for each in report.validation if each.problem), None)
    if problem is not None:
        raise ModelError(problem)
    loss = loss_of(report, job.settings, job.floors)
    undone = [
        f"{step.name} was undone: {step.reason}"
        for step in shelf.steps(passes)
        if step.status == "rolled_back"
    ]
    latency = None
    if loss.strain <= job.slack:
        left = max(0.0, job.left - (monotonic() - started))
        latency = _latency(job, path, TIMED_SHARE * left)
    return Trial(
        number=0,
        recipe=job.recipe,
        status="missed" if loss.missed else "kept",
        reason="; ".join([*loss.missed, *undone]),
        bytes=report.output.bytes,
        drop=loss.drop,
        strain=loss.strain,
        snr_db=loss.snr_db,
        latency_ratio=None if latency is None else latency.median,
        latency_low=None if latency is None else latency.low,
        latency_high=None if latency is None else latency.high,
        seconds=monotonic() - started,
    )


def _made(
    job: Job, shelf: Shelf, passes: Sequence[Pass], *, is_careful: bool
) -> tuple[Path, Report]:
    """Make what is not finished of a candidate; return the result and how close it is.

    Args:
        job: The candidate.
        shelf: What is finished.
        passes: Its pipeline.
        is_careful: Whether each pass's result is compared, so that what is wrong is undone there;
            if not, only the last is.
    """
    without = {"evaluate": None, "max_drop": None, "min_snr": None, "bench": False}
    quiet = job.settings.model_copy(update=without)
    unchecked = quiet.model_copy(update={"validation": False})
    done = shelf.beginning(passes)
    path = shelf.model(passes[:done]) or job.model
    report = None
    for count in range(done + 1, len(passes) + 1):
        result = compress(
            path,
            [passes[count - 1]],
            against=job.model,
            data=job.data,
            settings=quiet if is_careful or count == len(passes) else unchecked,
            memory=shelf.memory(passes[: count - 1]),
        )
        path, report = shelf.keep(passes[:count], result, job.running)
    if report is None or not report.validation:
        report = shelf.compared(passes, path, job.model, data=job.data, settings=quiet)
    return path, report


def _latency(job: Job, path: Path, seconds: float) -> Interval:
    session = open_session(job.model, job.settings.provider[0])
    samples = samples_for(session, job.data, job.settings.samples, job.settings.seed)
    feeds = list(islice(samples.batched(1), TIMED_FEEDS))
    provider, threads = job.settings.provider[0], job.settings.threads or 1
    return time_ratio(job.model, path, feeds, provider, threads, seconds=seconds)


class _Listening:
    """Keeps the last lines that a process says, so that it can always go on saying more."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process
        self._lines: deque[bytes] = deque(maxlen=LAST_LINES)
        self._thread = Thread(target=self._listen, daemon=True)
        self._thread.start()

    def _listen(self) -> None:
        assert self._process.stdout is not None  # noqa: S101 - it was asked for
        with self._process.stdout as output:
            self._lines.extend(output)

    def last_line(self) -> str:
        """Return the last line that says something, once the process has ended."""
        # What it started, and could not be ended, may hold the pipe open.
        self._thread.join(POLL_SECONDS)
        lines = (line.decode(errors="replace").strip() for line in reversed([*self._lines]))
        return next(filter(None, lines), "")


def _started(job: Job, scratch: str) -> subprocess.Popen[bytes]:
    """Start a process that finds what this one finds, and leaves nothing outside of scratch."""
    command = [sys.executable, "-c", f"from {__name__} import main; main()", scratch]
    path = os.pathsep.join(filter(None, sys.path))
    # A session of its own, so that an interrupt from the keyboard reaches the search alone.
    process = subprocess.Popen(  # noqa: S603 - this module
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=os.environ | {"PYTHONPATH": path, "TMPDIR": scratch, "TEMP": scratch},
        start_new_session=True,
    )
    assert process.stdin is not None  # noqa: S101 - it was asked for
    # One that ends at once says why in its errors.
    with suppress(BrokenPipeError):
        pickle.dump(job, process.stdin)
        process.stdin.flush()
    return process


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a process and, where the system has groups, what it started."""
    process.kill()
    process.wait()
    if hasattr(os, "killpg"):
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    if process.stdin is not None:
        process.stdin.close()


def _fate(code: int, last: str) -> str:
    """Say how a process ended that left no record."""
    if code >= 0:
        return last or f"ended with exit code {code}"
    name = signal.Signals(-code).name
    return f"was killed by {name}" + (", out of memory perhaps" if name == "SIGKILL" else "")


def _watch_for_end(stdin: int, scratch: str) -> None:
    """End this process as soon as nobody waits for it any more, and leave nothing.

    It reads past Python's buffer, whose lock would abort the process where it ends by itself.
    """
    while os.read(stdin, 1):
        pass
    rmtree(scratch, ignore_errors=True)
    os._exit(1)


def main() -> None:
    """Try the job on stdin, and write down what it came to."""
    job: Job = pickle.load(sys.stdin.buffer)  # noqa: S301 - from the process that started this one
    scratch = sys.argv[1]
    Path(scratch, BEGUN).touch()
    Thread(target=_watch_for_end, args=(sys.stdin.fileno(), scratch), daemon=True).start()
    if resource is not None:
        # A crash is told by how the process ends; its memory would only fill the disk.
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    started = monotonic()
    try:
        try:
            trial = attempt(job)
        except OnnxcompError as error:
            if may_pass(error):
                raise
            trial = failed(job, error, started)
        Shelf(job.shelf).note(parse_recipe(job.recipe), trial)
    except Exception as error:  # noqa: BLE001 - told to who waits, in one line
        kind = "" if isinstance(error, OnnxcompError) else f"{type(error).__name__}: "
        sys.stderr.write(f"{kind}{' '.join(str(error).split())}\n")
        sys.exit(TRANSIENT if may_pass(error) else 1)


def may_pass(error: BaseException) -> bool:
    """Tell whether an error says that the machine had no room or memory, or a file was not there.

    Args:
        error: It, with what caused it.
    """
    while True:
        if isinstance(error, OSError | MemoryError) or NO_MEMORY.search(str(error)):
            return True
        cause = error.__cause__ or error.__context__
        if cause is None:
            return False
        error = cause
