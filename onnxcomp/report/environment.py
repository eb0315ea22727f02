"""What a run ran on: without it, no ratio of times means anything."""

from __future__ import annotations

import os
import platform
import re
from pathlib import Path
from typing import TYPE_CHECKING

import onnx
import onnxruntime

from onnxcomp.report.frozen import Record

if TYPE_CHECKING:
    from collections.abc import Sequence

PROCESSORS = Path("/proc/cpuinfo")


class Environment(Record):
    """Versions, processor, and how results were run.

    Attributes:
        python: Version of Python.
        onnx: Version of onnx.
        onnxruntime: Version of ONNX Runtime.
        system: The operating system and its release.
        processor: The processor's model, or its architecture where the system does not say.
        cores: Logical processors; None where the system does not say.
        providers: Execution providers that results were run on, as they were asked for.
        threads: Threads of a run; 0 where it was left to ONNX Runtime (timing takes one then).
    """

    python: str
    onnx: str
    onnxruntime: str
    system: str
    processor: str
    cores: int | None
    providers: tuple[str, ...]
    threads: int


def environment(providers: Sequence[str], threads: int) -> Environment:
    """Return what this process runs on.

    Args:
        providers: Execution providers that results are run on.
        threads: Threads of a run.
    """
    return Environment(
        python=platform.python_version(),
        onnx=onnx.__version__,
        onnxruntime=onnxruntime.__version__,
        system=f"{platform.system()} {platform.release()}",
        processor=_processor(),
        cores=os.cpu_count(),
        providers=tuple(providers),
        threads=threads,
    )


def _processor() -> str:
    """Return the processor's name; Linux tells it in a file only."""
    try:
        told = PROCESSORS.read_text(encoding="utf-8", errors="replace")
    except OSError:
        told = ""
    named = re.search(r"^model name\s*:\s*(.+)$", told, re.MULTILINE)
    return named[1].strip() if named else platform.processor() or platform.machine()
