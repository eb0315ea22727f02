"""What takes processes of their own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from hashlib import sha256
from typing import TYPE_CHECKING

import numpy as np

from onnxcomp.api import Settings, compress
from onnxcomp.pipeline import parse_recipe, recipe
from onnxcomp.testing.expectations import expect
from onnxcomp.testing.plain_models import mlp

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from onnxcomp.pipeline import Pass

THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
MAIN = f"from {__name__} import main; main()"


def check_threads(subject: Pass, folder: Path) -> None:
    """The same bytes come out with one thread as with two, with data and without."""
    check_threads_of((subject,), folder)


def check_threads_of(subjects: Sequence[Pass], folder: Path) -> None:
    """Check the threads of several passes, each by itself, in no more processes than for one."""
    small = mlp()
    source = folder / "model.onnx"
    source.write_bytes(small.proto.SerializeToString(deterministic=True))
    samples = folder / "samples.npz"
    np.savez(samples, x=np.concatenate([feed["x"] for feed in small.feeds]))
    task = [str(source), str(samples), [recipe((subject,)) for subject in subjects]]
    one, two = (_digests(task, threads) for threads in (1, 2))
    for about, digest in one.items():
        expect(digest == two[about], f"{about}: another number of threads gives other bytes")


def _digests(task: Sequence[object], threads: int) -> dict[str, str]:
    """Return digests of all results, in a process that has so many threads."""
    done = subprocess.run(  # noqa: S603 - this interpreter, and nothing of a stranger's
        [sys.executable, "-c", MAIN],
        input=json.dumps([threads, *task]),
        env=os.environ | dict.fromkeys(THREADS, str(threads)),
        capture_output=True,
        text=True,
        check=False,
    )
    expect(done.returncode == 0, f"with {threads} threads it fails: {done.stderr}")
    found: dict[str, str] = json.loads(done.stdout)
    return found


def main() -> None:
    """Print the digests of what the task on stdin gives."""
    threads, source, samples, recipes = json.load(sys.stdin)
    settings = Settings(bench=False, threads=threads)
    found = {}
    for place, one in enumerate(recipes):
        passes = parse_recipe(one)
        for about, data in (("without", None), ("with", samples)):
            if data is not None or not any(each.needs_data for each in passes):
                made = compress(source, passes, data=data, settings=settings)
                digest = sha256(made.to_bytes()).hexdigest()
                found[f"{passes[0].name} ({place}) {about} data"] = digest
    print(json.dumps(found))  # noqa: T201 - for the process that asked
