"""What does removing channels cost on this model, and what does it bring?

    python bench/prune_channels.py --model MODEL --data CALIBRATION --evaluate FILE.py:NAME
        [--macs 0.75,0.5] [--forms ours,magnitude,magnitude-global] [--no-simplify] [--samples N]
        [--threads 1] [--save FOLDER] [--json OUT.json]

Rows, for each share of the multiply-accumulate operations that is kept: `ours` is the pass with
data; `magnitude` takes the channels of smallest weights, the same share of every group, and
repairs nothing; `magnitude-global` takes them from wherever they are smallest. `macs` is what was
counted in the result. `evaluating.py` says what judges the results. Sizes and times are ratios to
the model as it came, both read from files; of three figures the last two are a 95 % interval, and
a `control` is the model against itself. Exits 1 if a result is not valid or cannot be made.
"""

import argparse
import sys
import time
from pathlib import Path

import numpy as np
from evaluating import (
    Judge,
    Row,
    against_original,
    is_safe,
    judging_parser,
    results_folder,
    tabulate,
)

from onnxcomp import OnnxcompError, Pass, Settings, compress, load_model
from onnxcomp.passes import PruneChannels, Simplify
from onnxcomp_passes.prune_channels import shapes
from onnxcomp_passes.prune_channels.macs import work_of

FORMS = {
    "ours": {},
    "uniform": {"scope": "uniform"},
    "magnitude": {"criterion": "magnitude", "scope": "uniform"},
    "magnitude-global": {"criterion": "magnitude", "scope": "global"},
}
REPAIRED = {"ours", "uniform"}
COLUMNS = (
    "form", "goal", "macs", "bytes", "size_ratio", "metric", "drop", "low", "high", "snr_db",
    "task_snr", "latency_ratio", "latency_control", "cpu_ratio", "cpu_control", "seconds",
    "status",
)  # fmt: skip


def operations(path: Path) -> float:
    """Count the multiply-accumulate operations of a model on a sample that is made up."""
    model = load_model(path)
    return float(work_of(model, [], shapes.measure(model).shapes).total(np.zeros(0)))


def measure(
    arguments: argparse.Namespace, form: str, goal: float, judge: Judge, folder: Path
) -> Row:
    """Prune once, write the result into a folder, and return its row."""
    path = folder / f"{arguments.model.stem}-{form}-{goal:g}.onnx"
    row: Row = dict.fromkeys(COLUMNS) | {"form": form, "goal": goal}
    first: tuple[Pass, ...] = (Simplify(),) if arguments.simplify else ()
    pruned = PruneChannels.model_validate({"macs": goal, **FORMS[form]})
    data = arguments.data if form in REPAIRED else None
    settings = Settings(samples=arguments.samples, threads=arguments.threads, bench=False)
    started = time.perf_counter()
    try:
        done = compress(arguments.model, (*first, pruned), data=data, settings=settings)
        done.save(path)
        seconds = time.perf_counter() - started
        row |= {"seconds": seconds, "status": done.report.steps[-1].status}
        row |= {"macs": operations(path) / operations(arguments.model)}
        timed = against_original(arguments.model, path, arguments.data, arguments.threads)
        return row | judge.figures(path) | timed
    except OnnxcompError as error:
        return row | {"status": f"failed: {error}"}


def parsed() -> argparse.Namespace:
    parser = judging_parser(__doc__.partition("\n")[0])
    parser.add_argument(
        "--macs", type=lambda text: [float(each) for each in text.split(",")], default=[0.75, 0.5]
    )
    parser.add_argument(
        "--forms",
        type=lambda text: text.split(","),
        default=["ours", "magnitude", "magnitude-global"],
    )
    return parser.parse_args()


def main() -> int:
    arguments = parsed()
    unknown = set(arguments.forms) - set(FORMS)
    if unknown:
        sys.exit(f"no such form: {', '.join(sorted(unknown))}")
    judge = Judge(arguments.model, arguments.evaluate, arguments.threads)
    with results_folder(arguments.save) as folder:
        cases = [(form, goal) for goal in arguments.macs for form in arguments.forms]
        rows = (measure(arguments, *case, judge, folder) for case in cases)
        done = tabulate(judge, rows, arguments.json)
    return int(not all(is_safe(row) for row in done))


if __name__ == "__main__":
    sys.exit(main())
