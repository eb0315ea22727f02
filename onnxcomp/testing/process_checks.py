"""What takes processes of their own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING

from onnxcomp.pipeline import recipe
from onnxcomp.testing.expectations import expect
from onnxcomp.testing.plain_models import mlp

if TYPE_CHECKING:
    from pathlib import Path

    from onnxcomp.pipeline import Pass

THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
MAIN = "from onnxcomp.cli import main; main()"


def check_threads(subject: Pass, folder: Path) -> None:
    """The command gives the same bytes with one thread as with two."""
    source = folder / "model.onnx"
    source.write_bytes(mlp().proto.SerializeToString(deterministic=True))
    recipe_file = folder / "recipe.json"
    recipe_file.write_text(json.dumps(recipe((subject,))), encoding="utf-8")
    results = []
    for threads in ("1", "2"):
        target = folder / f"{threads}.onnx"
        command = [sys.executable, "-c", MAIN, "run", str(recipe_file), str(source)]
        options = ["-o", str(target), "--threads", threads, "--no-bench", "--quiet"]
        environment = os.environ | dict.fromkeys(THREADS, threads)
        done = subprocess.run(  # noqa: S603 - this interpreter, and nothing of a stranger's
            [*command, *options], env=environment, capture_output=True, text=True, check=False
        )
        expect(done.returncode == 0, f"with {threads} threads the command fails: {done.stderr}")
        results.append(target.read_bytes())
    expect(results[0] == results[1], "another number of threads gives other bytes")
