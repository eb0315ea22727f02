"""What takes processes of their own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import numpy as np

from onnxcomp.pipeline import recipe
from onnxcomp.testing.expectations import expect
from onnxcomp.testing.plain_models import mlp

if TYPE_CHECKING:
    from pathlib import Path

    from onnxcomp.pipeline import Pass

THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
MAIN = "from onnxcomp.cli import main; main()"


def check_threads(subject: Pass, folder: Path) -> None:
    """The command gives the same bytes with one thread as with two, with data and without."""
    small = mlp()
    source = folder / "model.onnx"
    source.write_bytes(small.proto.SerializeToString(deterministic=True))
    recipe_file = folder / "recipe.json"
    recipe_file.write_text(json.dumps(recipe((subject,))), encoding="utf-8")
    samples = folder / "samples.npz"
    np.savez(samples, x=np.concatenate([feed["x"] for feed in small.feeds]))
    command = ["run", str(recipe_file), str(source), "-o", str(folder / "result.onnx")]
    runs = {"without": [], "with": ["--data", str(samples)]}
    if subject.needs_data:
        del runs["without"]
    for about, data in runs.items():
        results = []
        for threads in ("1", "2"):
            _run([*command, *data], threads)
            results.append((folder / "result.onnx").read_bytes())
        same = results[0] == results[1]
        expect(same, f"{about} data, another number of threads gives other bytes")


def _run(command: list[str], threads: str) -> None:
    options = ["--threads", threads, "--no-bench", "--quiet"]
    done = subprocess.run(  # noqa: S603 - this interpreter, and nothing of a stranger's
        [sys.executable, "-c", MAIN, *command, *options],
        env=os.environ | dict.fromkeys(THREADS, threads),
        capture_output=True,
        text=True,
        check=False,
    )
    expect(done.returncode == 0, f"with {threads} threads the command fails: {done.stderr}")
