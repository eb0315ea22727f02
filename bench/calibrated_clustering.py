"""What does clustering cost with calibration data and without, at so many bits a weight?

    python bench/calibrated_clustering.py --model MODEL --data DATA --evaluate FILE.py:NAME
        [--bits 8 --bits 4 ...] [--average-bits 5 ...] [--forms data,free,tensor]
        [--no-simplify] [--samples 128] [--save FOLDER] [--json OUT.json]

Rows: `tensor` is one codebook a tensor, without data, of the model as it came; `free` is the
default without data; `data` is calibrated, and at 2 bits `vector` is width 4, calibrated; for
`average` the pass chooses bits for each tensor, calibrated, so that the clustered weights take on
average so many bits, all that their stores add included. All but `tensor` simplify first.

`evaluating.py` says what judges the results. Exits 1 if one is larger than the model, is not
valid, or cannot be made.
"""

import argparse
import sys
from collections.abc import Iterator
from math import prod
from pathlib import Path
from typing import NamedTuple

from evaluating import Judge, Row, is_safe, judging_parser, results_folder, tabulate

from onnxcomp import OnnxcompError, Pass, Report, Settings, Verdict, compress
from onnxcomp.passes import Cluster, Simplify

COLUMNS = (
    "form", "bits", "average_bits", "bytes", "size_ratio", "metric", "drop", "low", "high",
    "snr_db", "task_snr", "seconds", "status",
)  # fmt: skip


class Case(NamedTuple):
    """One row that is asked for: passes, and the bits a weight that they give, or on average."""

    form: str
    bits: float
    recipe: tuple[Pass, ...]


def cases(arguments: argparse.Namespace) -> Iterator[Case]:
    """Give the rows that are asked for."""
    first = (Simplify(),) if arguments.simplify else ()
    for bits in arguments.bits or [8, 6, 4, 3, 2]:
        if "tensor" in arguments.forms:
            yield Case("tensor", bits, (Cluster(bits=bits, granularity="tensor"),))
        if "free" in arguments.forms:
            yield Case("free", bits, (*first, Cluster(bits=bits)))
        if "data" in arguments.forms:
            yield Case("data", bits, (*first, Cluster(bits=bits)))
            if bits == 2:
                yield Case("vector", bits, (*first, Cluster(bits=bits, width=4)))
    for average in arguments.average_bits or []:
        most = bytes_at(arguments.model, first, average)
        yield Case("average", average, (*first, Cluster(max_bytes=most)))


def bytes_at(model: Path, first: tuple[Pass, ...], average: float) -> int:
    """Return the bytes of the model with its clustered weights at so many bits on average."""
    quick = Settings.model_validate({"validate": False, "bench": False})
    plain = compress(model, first, settings=quick).report
    clustered = own_stores(compress(model, (*first, Cluster()), settings=quick).report)
    floats = sum(each.bytes_before for each in clustered)
    count = sum(prod(each.shape) for each in clustered)
    return plain.output.bytes - floats + int(average / 8 * count)


def own_stores(report: Report) -> list[Verdict]:
    """Return verdicts on the clustered tensors, but for those that became another one."""
    return [each for each in report.steps[-1].changed if each.bytes_after]


def measure(arguments: argparse.Namespace, case: Case, judge: Judge, folder: Path) -> Row:
    """Compress once, write the result into a folder, and return its row."""
    path = folder / f"{arguments.model.stem}-{case.form}-{case.bits:g}.onnx"
    row: Row = dict.fromkeys(COLUMNS) | {"form": case.form, "bits": case.bits}
    settings = Settings(samples=arguments.samples, threads=arguments.threads, bench=False)
    data = None if case.form in {"tensor", "free"} else arguments.data
    try:
        done = compress(arguments.model, case.recipe, data=data, settings=settings)
        report = done.save(path)
        figures = judge.figures(path)
    except OnnxcompError as error:
        return row | {"status": f"failed: {error}"}
    stores = own_stores(report)
    count = sum(prod(each.shape) for each in stores)
    problems = [each.problem for each in report.validation if each.problem is not None]
    return row | {
        **figures,
        "average_bits": 8 * sum(each.bytes_after for each in stores) / count if count else None,
        "bytes": report.output.bytes,
        "size_ratio": report.size_ratio,
        "seconds": sum(each.seconds for each in report.steps),
        "status": f"invalid: {problems[0]}" if problems else report.steps[-1].status,
    }


def parsed() -> argparse.Namespace:
    parser = judging_parser(__doc__.partition("\n")[0])
    parser.add_argument("--bits", type=int, action="append")
    parser.add_argument("--average-bits", type=float, action="append")
    parser.add_argument("--forms", type=lambda text: text.split(","), default="data,free,tensor")
    return parser.parse_args()


def main() -> int:
    arguments = parsed()
    judge = Judge(arguments.model, arguments.evaluate, arguments.threads)
    with results_folder(arguments.save) as folder:
        rows = (measure(arguments, case, judge, folder) for case in cases(arguments))
        done = tabulate(judge, rows, arguments.json)
    return int(not all(is_safe(row) for row in done))


if __name__ == "__main__":
    sys.exit(main())
