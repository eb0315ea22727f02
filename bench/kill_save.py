"""Does a save that is killed leave the old file or the new one, and nothing else?

A child process saves a model over another and is killed with SIGKILL at a random moment of the
save; then the target must hold the whole old model or the whole new one, external data included.

Run: python bench/kill_save.py [--kills 100] [--megabytes 64] [--seed 0]
"""

from __future__ import annotations

import argparse
import hashlib
import os
import random
import shutil
import signal
import sys
import time
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnx

from onnxcomp.errors import OnnxcompError
from onnxcomp.graph import Model, load_model, save_model

OUTCOMES = ("old", "new", "BROKEN")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=100, help="for each way of saving")
    parser.add_argument("--megabytes", type=int, default=64, help="size of the models")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    moments = random.Random(arguments.seed)  # noqa: S311 - no secret
    print(f"{'way':10}{'saves':>7}{'killed':>8}" + "".join(f"{each:>8}" for each in OUTCOMES))
    broken = 0
    for way in ("inline", "external"):
        with TemporaryDirectory() as folder:
            counts = killed_saves(Path(folder), way, arguments, moments)
        print(
            f"{way:10}{sum(counts[each] for each in OUTCOMES):7}{counts['killed']:8}"
            + "".join(f"{counts[each]:8}" for each in OUTCOMES)
        )
        broken += counts["BROKEN"]
    return int(broken > 0)


def killed_saves(
    folder: Path, way: str, arguments: argparse.Namespace, moments: random.Random
) -> Counter[str]:
    """Kill saves of the new model over the old one, and count what each left behind."""
    old, new = (make(folder / name, way, arguments.megabytes) for name in ("old", "new"))
    whole = {content(old): "old", content(new): "new"}
    target = folder / "target"
    replacement = load_model(new)
    duration = max(seconds_of_save(replacement, old, target) for _ in range(3))
    counts: Counter[str] = Counter()
    while counts["killed"] < arguments.kills:
        restore(old, target)
        delay = moments.uniform(0, duration)
        counts["killed"] += was_killed(replacement, target / "model.onnx", delay)
        counts[whole.get(content(target / "model.onnx"), "BROKEN")] += 1
    return counts


def make(folder: Path, way: str, megabytes: int) -> Path:
    """Save a model of random weights; the folder's name is the seed."""
    folder.mkdir()
    random_numbers = np.random.default_rng(list(folder.name.encode()))
    weights = [
        onnx.numpy_helper.from_array(
            random_numbers.standard_normal((1024, 1024), np.float32), f"weight{number}"
        )
        for number in range(max(1, megabytes // 4))
    ]
    nodes = [
        onnx.helper.make_node("MatMul", [f"x{number}", weight.name], [f"x{number + 1}"])
        for number, weight in enumerate(weights)
    ]
    ends = [
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1, 1024])
        for name in ("x0", f"x{len(weights)}")
    ]
    graph = onnx.helper.make_graph(nodes, folder.name, ends[:1], ends[1:], weights)
    plain = onnx.helper.make_model(graph, ir_version=8)
    path = folder / "model.onnx"
    onnx.save_model(plain, path, save_as_external_data=way == "external", location="plain.data")
    if way == "external":
        save_model(load_model(path), path)
        (folder / "plain.data").unlink()
    return path


def restore(old: Path, target: Path) -> None:
    """Make the target folder what it was, so that it holds the old model and nothing else."""
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(old.parent, target)


def seconds_of_save(model: Model, old: Path, target: Path) -> float:
    restore(old, target)
    started = time.perf_counter()
    os.waitpid(start_save(model, target / "model.onnx"), 0)
    return time.perf_counter() - started


def start_save(model: Model, path: Path) -> int:
    """Save in a child process, and return its id."""
    child = os.fork()
    if child == 0:
        save_model(model, path)
        os._exit(0)
    return child


def was_killed(model: Model, path: Path, delay: float) -> bool:
    """Kill a save after a while; whether that was before it was done."""
    child = start_save(model, path)
    time.sleep(delay)
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    return os.WIFSIGNALED(status)


def content(path: Path) -> str:
    """Return a hash of all that a model holds; a message where it cannot be read."""
    try:
        model = load_model(path)
        parts = [hashlib.sha256(constant.values.tobytes()) for constant in model.constants]
    except OnnxcompError as error:
        return str(error)
    nodes = ",".join(f"{node.op}{node.outputs[0].name}" for node in model.nodes)
    return ",".join([model.name, nodes, *(part.hexdigest() for part in parts)])


if __name__ == "__main__":
    sys.exit(main())
