"""What does pruning cost with calibration data, beside plain magnitudes, at so many zeros?

    python bench/prune_model.py --model MODEL --data DATA --evaluate FILE.py:NAME
        [--sparsity 0.5 ...] [--pattern 2:4 ...] [--forms data,magnitude]
        [--bits 4] [--no-simplify] [--samples 128] [--save FOLDER] [--json OUT.json]

Rows: `magnitude` is each tensor by magnitude, without data; `data` is the default with data. With
--bits there is a row of each that is clustered afterwards, with data where it was pruned so.
`zeros` is the share of all weights that are pruned or could be: of those that are no bias, no
normalisation, not tiny and of no depthwise convolution. `matmul_ratio` is what the weights of
MatMul take of their bytes as float32.

`evaluating.py` says what judges the results. Exits 1 if one is larger than the model, is not
valid, or cannot be made.
"""

import argparse
import sys
from collections.abc import Iterator
from math import prod
from pathlib import Path
from typing import NamedTuple

import numpy as np
from evaluating import Judge, Row, is_safe, judging_parser, results_folder, tabulate

from onnxcomp import OnnxcompError, Pass, Report, Settings, compress
from onnxcomp.graph import load_model, weights
from onnxcomp.passes import Cluster, Prune, Simplify

COLUMNS = (
    "form", "zeros_asked", "bits", "zeros", "matmul_ratio", "bytes", "size_ratio", "zstd_ratio",
    "metric", "drop", "low", "high", "snr_db", "task_snr", "seconds", "status",
)  # fmt: skip


class Case(NamedTuple):
    """One row that is asked for."""

    form: str
    asked: str
    bits: int | None
    recipe: tuple[Pass, ...]


def cases(arguments: argparse.Namespace) -> Iterator[Case]:
    """Give the rows that are asked for."""
    first = (Simplify(),) if arguments.simplify else ()
    asked: list[tuple[str, dict[str, float | str]]] = [
        *((f"{each:g}", {"sparsity": each}) for each in arguments.sparsity),
        *((each, {"pattern": each}) for each in arguments.pattern),
    ]
    for name, options in asked:
        for form in arguments.forms:
            ours = {} if form == "data" else {"criterion": "magnitude", "scope": "tensor"}
            prune = Prune.model_validate({**options, **ours})
            yield Case(form, name, None, (*first, prune))
            if arguments.bits:
                then = Cluster(bits=arguments.bits)
                yield Case(form, name, arguments.bits, (*first, prune, then))


def zeros_of(path: Path) -> float:
    """Return the share of zeros of what pruning looks at."""
    zeros, total = 0, 0
    for each in weights(load_model(path)):
        if each.unsuitable is None and not each.is_depthwise and each.size >= 256:
            zeros += each.size - np.count_nonzero(each.load())
            total += each.size
    return zeros / max(total, 1)


def matmul_ratio(report: Report) -> float | None:
    """Return the bytes of the weights of MatMul over those that they have as float32."""
    own = [each for each in report.steps[-1].tensors if each.op_types == ("MatMul",)]
    plain = sum(4 * prod(each.shape) for each in own)
    return sum(each.bytes_after for each in own) / plain if plain else None


def measure(arguments: argparse.Namespace, case: Case, judge: Judge, folder: Path) -> Row:
    """Compress once, write the result into a folder, and return its row."""
    name = f"{arguments.model.stem}-{case.form}-{case.asked.replace(':', '_')}-{case.bits or 32}"
    path = folder / f"{name}.onnx"
    row: Row = dict.fromkeys(COLUMNS) | {"form": case.form, "zeros_asked": case.asked}
    row |= {"bits": case.bits}
    settings = Settings(samples=arguments.samples, threads=arguments.threads, bench=False)
    data = arguments.data if case.form == "data" else None
    try:
        done = compress(arguments.model, case.recipe, data=data, settings=settings)
        report = done.save(path)
        figures = judge.figures(path)
    except OnnxcompError as error:
        return row | {"status": f"failed: {error}"}
    problems = [each.problem for each in report.validation if each.problem is not None]
    return row | {
        **figures,
        "zeros": zeros_of(path),
        "matmul_ratio": matmul_ratio(report),
        "bytes": report.output.bytes,
        "size_ratio": report.size_ratio,
        "zstd_ratio": report.source.zstd_bytes / report.output.zstd_bytes,
        "seconds": sum(each.seconds for each in report.steps),
        "status": f"invalid: {problems[0]}" if problems else report.steps[-1].status,
    }


def parsed() -> argparse.Namespace:
    parser = judging_parser(__doc__.partition("\n")[0])
    parser.add_argument("--sparsity", type=float, action="append", default=[])
    parser.add_argument("--pattern", action="append", default=[])
    parser.add_argument("--bits", type=int)
    parser.add_argument(
        "--forms", type=lambda text: text.split(","), default=["magnitude", "data"]
    )
    arguments = parser.parse_args()
    if not arguments.sparsity and not arguments.pattern:
        arguments.sparsity, arguments.pattern = [0.5, 0.7], ["2:4"]
    return arguments


def main() -> int:
    arguments = parsed()
    judge = Judge(arguments.model, arguments.evaluate, arguments.threads)
    with results_folder(arguments.save) as folder:
        rows = (measure(arguments, case, judge, folder) for case in cases(arguments))
        done = tabulate(judge, rows, arguments.json)
    return int(not all(is_safe(row) for row in done))


if __name__ == "__main__":
    sys.exit(main())
