"""Is observing activations as fast as ONNX Runtime's MinMax calibrator, and in how much memory?

    python bench/calibration_speed.py --model MODEL --data DATA [--samples 256] [--repeats 3]
        [--limit 1.0] [--json OUT.json]

Both observe what their quantizer rounds in a model that is simplified already, one sample at a
time; ours keeps histograms and channels' extremes, MinMax the extremes of tensors. Each run is a
fresh process, and the two take turns. Exits 1 if ours takes more CPU time, by the median of the
ratios, or more memory than the limit, in GB (10^9).
"""

import argparse
import json
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter, process_time
from typing import NamedTuple

import numpy as np
from onnxruntime.quantization import CalibrationMethod
from onnxruntime.quantization.calibrate import create_calibrator
from onnxruntime.quantization.registry import QDQRegistry
from quantizers import Reader, Task

from onnxcomp import load_model
from onnxcomp.runtime import open_session, read_samples
from onnxcomp.runtime.memory import own_peak
from onnxcomp.statistics import Range, RangeWatch, layers, walk
from onnxcomp_passes.quantize.profiles import PROFILES
from onnxcomp_passes.quantize.selecting import full_plan


class Cost(NamedTuple):
    """What one run took: CPU and wall seconds, and the peak of its process in GB."""

    cpu: float
    wall: float
    gigabytes: float


def observe(task: Task) -> None:
    """Observe what the `cpu` profile rounds."""
    session = open_session(task.model, threads=task.threads)
    samples = read_samples(task.data, session.inputs, task.samples)
    model = load_model(task.model)
    chosen = {id(layer.weight.tensor) for layer in layers(model)}
    placement = full_plan(model, chosen, PROFILES["cpu"]).place(model)
    watches = [
        RangeWatch(each.name, (each.tensor, each.scope), Range()) for each in placement.tensors
    ]
    walk((model,), watches, samples)


def calibrate(task: Task) -> None:
    """Let ONNX Runtime find the extremes of what its static quantization rounds."""
    calibrator = create_calibrator(
        task.model,
        list(QDQRegistry),
        str(task.target),
        CalibrationMethod.MinMax,
        providers=["CPUExecutionProvider"],
    )
    calibrator.collect_data(Reader(task))
    calibrator.compute_data()


WAYS: dict[str, Callable[[Task], None]] = {"onnxcomp": observe, "ort-minmax": calibrate}


def cost(task: Task) -> Cost:
    """Run one way in this process."""
    wall, cpu = perf_counter(), process_time()
    WAYS[task.form](task)
    return Cost(process_time() - cpu, perf_counter() - wall, own_peak() / 1e9)


def measured(task: Task) -> Cost:
    """Run one way in a fresh process."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(cost, task).result()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--data", required=True)
    parser.add_argument("--samples", type=int, default=256)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--limit", type=float, default=1.0, help="GB that ours may take")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    found: dict[str, list[Cost]] = {form: [] for form in WAYS}
    with TemporaryDirectory() as folder:
        for _ in range(arguments.repeats):
            for form in WAYS:
                task = Task(
                    form,
                    arguments.model,
                    Path(folder, "augmented.onnx"),
                    data=arguments.data,
                    samples=arguments.samples,
                    threads=1,
                    simplify=False,
                    most_bytes=0,
                )
                found[form].append(measured(task))
                taken = found[form][-1]
                print(
                    f"{form:12}{taken.cpu:9.1f} s CPU{taken.wall:9.1f} s{taken.gigabytes:8.3f} GB",
                    flush=True,
                )
    ours, theirs = found.values()
    ratio = float(
        np.median([one.cpu / other.cpu for one, other in zip(ours, theirs, strict=True)])
    )
    peak = max(each.gigabytes for each in ours)
    print(f"CPU time, onnxcomp / MinMax: {ratio:.3f}; peak {peak:.3f} GB")
    if arguments.json:
        rows = {form: [each._asdict() for each in costs] for form, costs in found.items()}
        arguments.json.write_text(json.dumps(rows | {"cpu_ratio": ratio}, indent=2))
    holds = ratio <= 1 and peak <= arguments.limit
    print(f"no slower, and at most {arguments.limit:g} GB: {'holds' if holds else 'MISSED'}")
    return int(not holds)


if __name__ == "__main__":
    sys.exit(main())
