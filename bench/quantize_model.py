"""What does quantizing cost on this model, and what does it bring? Our pass's modes and rivals.

    python bench/quantize_model.py --model MODEL --data CALIBRATION --evaluate FILE.py:NAME
        [--modes static,dynamic,weights,auto] [--rivals] [--rival-calibrations MinMax,Percentile]
        [--no-simplify] [--samples N] [--threads 1] [--memory 8] [--save FOLDER] [--json OUT.json]

Rows: `simplified` is what all others are made of; then the pass's modes; then, with `--rivals`,
onnxruntime.quantization's, after its own preparation. `evaluating.py` says what judges the
results. Sizes and times are ratios to the model as it came, both read from files; of three figures
the last two are a 95 % interval, and a `control` is the model against itself. `seconds` is the
making alone, `gigabytes` (10^9) the peak of a process of its own, which for our modes checks the
result too. Exits 1 if a result of ours is larger than the model, is not valid, or cannot be made.
"""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

from evaluating import (
    Judge,
    Row,
    against_original,
    is_safe,
    judging_parser,
    results_folder,
    tabulate,
)
from quantizers import RIVALS, Task, first_line, made_apart

MODES = ("static", "dynamic", "weights", "auto")
COLUMNS = (
    "form", "bytes", "size_ratio", "metric", "drop", "low", "high", "snr_db", "task_snr",
    "latency_ratio", "latency_control", "cpu_ratio", "cpu_control", "seconds", "gigabytes",
    "status", "notes",
)  # fmt: skip


def tasks(arguments: argparse.Namespace, folder: Path) -> Iterator[Task]:
    """Give what is to be made; rivals start from the simplified model, if there is to be one."""
    stem = arguments.model.stem
    simplified = folder / f"{stem}-simplified.onnx"
    ours = [("simplified", arguments.model)] if arguments.simplify else []
    ours += [(mode, arguments.model) for mode in arguments.modes]
    source = simplified if arguments.simplify else arguments.model
    rivals = [(form, source) for form in rival_forms(arguments)]
    for form, model in (*ours, *rivals):
        yield Task(
            form,
            model,
            folder / f"{stem}-{form}.onnx",
            data=arguments.data,
            samples=arguments.samples,
            threads=arguments.threads,
            simplify=arguments.simplify,
            most_bytes=int(arguments.memory * 1e9),
        )


def rival_forms(arguments: argparse.Namespace) -> list[str]:
    if not arguments.rivals:
        return []
    calibrations = [f"ort-static-{each.lower()}" for each in arguments.rival_calibrations]
    return [*calibrations, "ort-dynamic", "ort-dynamic-default"]


def measure(task: Task, original: Path, judge: Judge) -> Row:
    """Make one result, and return its row."""
    row: Row = dict.fromkeys(COLUMNS) | {"form": task.form}
    try:
        made = made_apart(task)
        row |= {
            "seconds": made.seconds,
            "gigabytes": made.peak_bytes / 1e9,
            "bytes": task.target.stat().st_size,
            "status": made.status,
            "notes": "; ".join(made.notes),
        }
        timed = against_original(original, task.target, task.data, task.threads)
        return row | judge.figures(task.target) | timed
    except Exception as error:  # noqa: BLE001 - rivals raise anything, and one row is not all
        return row | {"status": f"failed: {first_line(error)}"}


def names(text: str) -> list[str]:
    return [each for each in text.split(",") if each]


def parsed() -> argparse.Namespace:
    parser = judging_parser(__doc__.partition("\n")[0])
    parser.add_argument("--modes", type=names, default=list(MODES), help="may be empty")
    parser.add_argument("--rivals", action="store_true")
    parser.add_argument("--rival-calibrations", type=names, default=["MinMax"])
    parser.add_argument("--memory", type=float, default=8.0, help="GB that one making may take")
    return parser.parse_args()


def main() -> int:
    arguments = parsed()
    unknown = set(rival_forms(arguments)) - set(RIVALS)
    if unknown:
        sys.exit(f"no such calibration: {', '.join(sorted(unknown))}")
    judge = Judge(arguments.model, arguments.evaluate, arguments.threads)
    with results_folder(arguments.save) as folder:
        makings = tasks(arguments, folder)
        rows = (measure(task, arguments.model, judge) for task in makings)
        done = tabulate(judge, rows, arguments.json)
    return int(not all(is_safe(row) for row in done if row["form"] not in RIVALS))


if __name__ == "__main__":
    sys.exit(main())
