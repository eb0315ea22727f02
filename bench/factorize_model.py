"""What does low rank cost on this model, and what does it bring? With data, and plain SVD.

    python bench/factorize_model.py --model MODEL --data CALIBRATION --evaluate FILE.py:NAME
        [--keep 0.7 --keep 0.5 ...] [--of bytes] [--allow size] [--kinds channel,spatial,tucker]
        [--then quantize --then cluster] [--no-simplify] [--samples N] [--threads 1]
        [--save FOLDER] [--json OUT.json]

Rows: `data` is the pass with calibration data, for a file (`--of bytes`) or a number of
multiplications (`macs`) that is so large a share of the model's; `plain` has the same kinds and
ranks, without data: the singular value decomposition of the weights. With `--then`, another pass
is applied to the simplified model and to the result of `data`.

`evaluating.py` says what judges the results. Sizes and times are ratios to the model as it came;
of three figures the last two are a 95 % interval, and a `control` is the model against itself.
Exits 1 if a result is larger than the model, is not valid, or cannot be made.
"""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from evaluating import (
    Judge,
    Row,
    against_original,
    is_safe,
    judging_parser,
    results_folder,
    tabulate,
)

from onnxcomp import OnnxcompError, Pass, Report, Settings, compress
from onnxcomp.api import recipe_of
from onnxcomp.passes import Cluster, Factorize, Quantize, Simplify

COLUMNS = (
    "form", "keep", "bytes", "size_ratio", "metric", "drop", "low", "high", "snr_db", "task_snr",
    "latency_ratio", "latency_control", "cpu_ratio", "cpu_control", "layers", "seconds", "status",
)  # fmt: skip
LATER: dict[str, Pass] = {"quantize": Quantize(), "cluster": Cluster()}


class Case(NamedTuple):
    """One row that is asked for: what is made of which model; `plain` without data."""

    form: str
    keep: float
    model: Path
    recipe: tuple[Pass, ...]


def cases(arguments: argparse.Namespace, folder: Path) -> Iterator[Case]:
    """Give the rows that are asked for; later ones need files that earlier ones have written."""
    first = (Simplify(),) if arguments.simplify else ()
    for keep in arguments.keep or [0.7]:
        yield Case("data", keep, arguments.model, (*first, asked(arguments, keep)))
        made = place(folder, arguments.model, "data", keep)
        yield Case("plain", keep, arguments.model, (*first, planned(made, arguments)))
        for name in arguments.then or ():
            yield Case(f"data-{name}", keep, made, (LATER[name],))
    for name in arguments.then or ():
        yield Case(name, 1.0, arguments.model, (*first, LATER[name]))


def asked(arguments: argparse.Namespace, keep: float) -> Factorize:
    """Return the pass that keeps a share."""
    goal = {"size_ratio": 1 / keep} if arguments.of == "bytes" else {"macs": keep}
    kinds = tuple(arguments.kinds.split(","))
    return Factorize.model_validate({"kinds": kinds, "allow": arguments.allow, **goal})


def planned(made: Path, arguments: argparse.Namespace) -> Factorize:
    """Return the pass that does without data what made a file."""
    plan = recipe_of(made)["passes"][-1].get("plan", ())
    return Factorize(plan=tuple(plan), allow=arguments.allow)


def place(folder: Path, model: Path, form: str, keep: float) -> Path:
    return folder / f"{model.stem}-{form}-{keep:g}.onnx"


def measure(arguments: argparse.Namespace, case: Case, judge: Judge, folder: Path) -> Row:
    """Make one result, write it into a folder, and return its row."""
    path = place(folder, arguments.model, case.form, case.keep)
    row: Row = dict.fromkeys(COLUMNS) | {"form": case.form, "keep": case.keep}
    settings = Settings(samples=arguments.samples, threads=arguments.threads, bench=False)
    data = None if case.form == "plain" else arguments.data
    try:
        done = compress(case.model, case.recipe, data=data, settings=settings)
        report = done.save(path)
        figures = judge.figures(path)
    except OnnxcompError as error:
        return row | {"status": f"failed: {error}"}
    timed = against_original(arguments.model, path, arguments.data, arguments.threads)
    return row | figures | made(report) | timed


def made(report: Report) -> Row:
    """Return what a step says of itself."""
    problems = [each.problem for each in report.validation if each.problem is not None]
    return {
        "layers": len(report.steps[-1].changed),
        "seconds": sum(each.seconds for each in report.steps),
        "status": f"invalid: {problems[0]}" if problems else report.steps[-1].status,
    }


def parsed() -> argparse.Namespace:
    parser = judging_parser(__doc__.partition("\n")[0])
    parser.add_argument("--keep", type=float, action="append")
    parser.add_argument("--of", choices=("bytes", "macs"), default="bytes")
    parser.add_argument("--allow", choices=("size", "speed", "both"), default="size")
    parser.add_argument("--kinds", default="channel,spatial,tucker")
    parser.add_argument("--then", choices=tuple(LATER), action="append")
    return parser.parse_args()


def main() -> int:
    arguments = parsed()
    judge = Judge(arguments.model, arguments.evaluate, arguments.threads)
    with results_folder(arguments.save) as folder:
        rows = (measure(arguments, case, judge, folder) for case in cases(arguments, folder))
        done = tabulate(judge, rows, arguments.json)
    return int(not all(is_safe(row) for row in done))


if __name__ == "__main__":
    sys.exit(main())
