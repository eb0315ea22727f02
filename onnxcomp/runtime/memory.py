"""Peak memory of loading and running a model once, in a fresh process."""

import os
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from onnxcomp.errors import ModelError
from onnxcomp.runtime.samples import cast_feed
from onnxcomp.runtime.sessions import open_session
from onnxcomp.runtime.values import Array

_PROGRAM = "from onnxcomp.runtime.memory import print_peak; print_peak()"
_KIBIBYTE = 1024


def peak_memory(
    model: bytes | Path, feed: Mapping[str, Array], provider: str = "cpu", threads: int = 0
) -> int:
    """Return the peak resident memory of a process that loads a model and runs it once, in bytes.

    The interpreter and ONNX Runtime are in the figure: some 100 MB, the same for every model.

    Raises:
        ModelError: The process failed.
    """
    with TemporaryDirectory(prefix="onnxcomp-") as folder:
        path = model if isinstance(model, Path) else Path(folder, "model.onnx")
        if not isinstance(model, Path):
            path.write_bytes(model)
        samples = Path(folder, "feed.npz")
        np.savez(samples, allow_pickle=False, **_storable(feed))
        command = [sys.executable, "-c", _PROGRAM, str(path), str(samples), provider, str(threads)]
        # The child finds this package where this process found it.
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        done = subprocess.run(  # noqa: S603  # nothing of it is a shell's
            command, capture_output=True, text=True, env=environment, check=False
        )
    if done.returncode != 0:
        said = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        raise ModelError(f"cannot measure the memory of a run: {said[-1]}")
    return int(done.stdout.split()[-1])


def _storable(feed: Mapping[str, Array]) -> dict[str, Array]:
    return {
        name: array.astype(str) if array.dtype.kind == "O" else array
        for name, array in feed.items()
    }


def print_peak() -> None:
    """Load and run the model that ``sys.argv`` names, and print this process's peak in bytes."""
    model, samples, provider, threads = sys.argv[1:]
    session = open_session(Path(model), provider, int(threads))
    with np.load(samples) as stored:
        session.run(cast_feed(stored, session.inputs, "feed"))
    sys.stdout.write(f"{own_peak()}\n")


def own_peak() -> int:
    """Return the peak resident memory of this process, in bytes."""
    # On Linux getrusage() inherits the parent's peak through exec; the kernel's own does not.
    with suppress(OSError):
        for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * _KIBIBYTE
    if sys.platform == "win32":
        import psutil  # noqa: PLC0415  # installed on Windows only

        return int(psutil.Process().memory_info().peak_wset)
    import resource  # noqa: PLC0415  # not on Windows

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # macOS counts bytes, the others KiB.
    return peak if sys.platform == "darwin" else peak * _KIBIBYTE
