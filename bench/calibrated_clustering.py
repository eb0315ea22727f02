"""What does clustering cost with calibration data and without, at so many bits a weight?

    python bench/calibrated_clustering.py --model MODEL --data DATA --evaluate FILE.py:NAME
        [--bits 8 --bits 4 ...] [--average-bits 5 ...] [--forms data,free,tensor]
        [--no-simplify] [--samples 128] [--save FOLDER] [--json OUT.json]

Rows: `tensor` is one codebook a tensor, without data, of the model as it came; `free` is the
default without data; `data` is calibrated, and at 2 bits `vector` is width 4, calibrated; for
`average` the pass chooses bits for each tensor, calibrated, so that the clustered weights take on
average so many bits, all that their stores add included. All but `tensor` simplify first.

Where the evaluator's module has NAME_items(predict) and NAME_metric(items), the drop gets a 95 %
interval (paired bootstrap over items); where it has NAME_snr(predict_original, predict_result),
its number is the column `task_snr`. `snr_db` is that of the worst output on the evaluator's own
feeds. Exits 1 if a result is larger than the model, is not valid, or cannot be made.
"""

import argparse
import json
import sys
from collections.abc import Iterator, Mapping
from dataclasses import replace
from math import isfinite, prod
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np
from rich.console import Console
from rich.table import Table

from onnxcomp import OnnxcompError, Pass, Report, Settings, Verdict, compress
from onnxcomp.runtime import Array, open_session
from onnxcomp.runtime.comparison import OutputSums
from onnxcomp.runtime.dtypes import is_float
from onnxcomp.runtime.evaluation import Predictor
from onnxcomp.runtime.samples import cast_feed
from onnxcomp.validation import load_evaluator
from passes import Cluster, Simplify

MOST_FEEDS = 64
RESAMPLES = 2000
COLUMNS = (
    "form", "bits", "average_bits", "bytes", "size_ratio", "metric", "drop", "low", "high",
    "snr_db", "task_snr", "seconds", "status",
)  # fmt: skip


class Case(NamedTuple):
    """One row that is asked for: passes, and the bits a weight that they give, or on average."""

    form: str
    bits: float
    recipe: tuple[Pass, ...]


def predictor(model: Path, threads: int) -> Predictor:
    """Return what runs a model for an evaluator."""
    session = open_session(model, threads=threads)
    return lambda feed: session.run(cast_feed(feed, session.inputs, "feed"))


class Recorder:
    """Passes feeds on and keeps some, evenly spread, with what the model made of them."""

    def __init__(self, predict: Predictor) -> None:
        self.predict = predict
        self.calls, self.stride = 0, 1
        self.kept: list[tuple[dict[str, Array], dict[str, Array]]] = []

    def __call__(self, feed: Mapping[str, Any]) -> dict[str, Array]:
        """Run the model once."""
        given = {name: np.array(value) for name, value in feed.items()}
        outputs = self.predict(feed)
        if self.calls % self.stride == 0:
            floats = {key: each.copy() for key, each in outputs.items() if is_float(each.dtype)}
            self.kept.append((given, floats))
        if len(self.kept) > MOST_FEEDS:
            self.kept, self.stride = self.kept[::2], 2 * self.stride
        self.calls += 1
        return outputs


class Judge:
    """Measures results against the original, by the evaluator and on its feeds."""

    def __init__(self, model: Path, reference: str, threads: int) -> None:
        self.evaluator = load_evaluator(reference)
        self.name = reference.rpartition(":")[2]
        self.threads = threads
        self.predict = predictor(model, threads)
        recorder = Recorder(self.predict)
        self.metric, self.resampled = self._evaluated(recorder)
        self.feeds = recorder.kept

    def figures(self, result: Path) -> dict[str, Any]:
        """Return what a result is worth."""
        predict = predictor(result, self.threads)
        metric, resampled = self._evaluated(predict)
        figures = {"metric": metric, "drop": self.metric - metric, "snr_db": self._snr(predict)}
        if resampled is not None:
            low, high = np.quantile(self.resampled - resampled, [0.025, 0.975])
            figures |= {"low": float(low), "high": float(high)}
        task_snr = self._helper("snr")
        if task_snr is not None:
            paired = replace(self.evaluator, function=lambda own: task_snr(own, predict))
            figures["task_snr"] = float(paired(self.predict))
        return figures

    def _evaluated(self, predict: Predictor) -> tuple[float, np.ndarray | None]:
        """Return the metric, and its values on resamples of the items where there are items."""
        items_of, metric_of = self._helper("items"), self._helper("metric")
        if items_of is None or metric_of is None:
            return float(self.evaluator(predict)), None
        items = np.asarray(replace(self.evaluator, function=items_of)(predict))
        generator, count = np.random.default_rng(0), len(items)
        draws = (generator.integers(count, size=count) for _ in range(RESAMPLES))
        resampled = np.array([float(metric_of(items[draw])) for draw in draws])
        return float(metric_of(items)), resampled

    def _helper(self, suffix: str) -> Any:
        """Return what the evaluator's module offers beside the evaluator, or None."""
        return getattr(self.evaluator.function, "__globals__", {}).get(f"{self.name}_{suffix}")

    def _snr(self, predict: Predictor) -> float | None:
        """Return the SNR of the worst float output on the kept feeds, in dB."""
        sums: dict[str, OutputSums] = {}
        for feed, expected in self.feeds:
            got = predict(feed)
            for name, value in expected.items():
                sums.setdefault(name, OutputSums(name)).add(value, got[name])
        found = [each.comparison().snr_db for each in sums.values()]
        return min((each for each in found if each is not None), default=None)


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


def measure(arguments: argparse.Namespace, case: Case, judge: Judge, path: Path) -> dict[str, Any]:
    """Compress once, write the result to a path, and return its row."""
    row: dict[str, Any] = dict.fromkeys(COLUMNS) | {"form": case.form, "bits": case.bits}
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


def shown(value: Any) -> str:
    return "-" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)


def is_safe(row: dict[str, Any]) -> bool:
    return row["status"] in {"applied", "nothing"} and row["size_ratio"] >= 1


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--data", required=True)
    parser.add_argument("--evaluate", required=True)
    parser.add_argument("--bits", type=int, action="append")
    parser.add_argument("--average-bits", type=float, action="append")
    parser.add_argument("--forms", type=lambda text: text.split(","), default="data,free,tensor")
    parser.add_argument("--simplify", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--samples", type=int, help="use the first so many of the data")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--save", type=Path, help="keep the results in this folder")
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


def main() -> int:
    arguments = parsed()
    judge = Judge(arguments.model, arguments.evaluate, arguments.threads)
    rows: list[dict[str, Any]] = []
    table = Table(*COLUMNS, title=f"{arguments.model}: metric {judge.metric:.4f}")
    with TemporaryDirectory() as temporary:
        folder = arguments.save or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        for case in cases(arguments):
            path = folder / f"{arguments.model.stem}-{case.form}-{case.bits:g}.onnx"
            rows.append(measure(arguments, case, judge, path))
            words = [shown(value) for value in rows[-1].values()]
            table.add_row(*words)
            print(*words, file=sys.stderr, flush=True)
            write(arguments.json, judge, rows)
    Console(width=200).print(table)
    return int(not all(is_safe(row) for row in rows))


def write(path: Path | None, judge: Judge, rows: list[dict[str, Any]]) -> None:
    """Write what is known so far, with null for what JSON cannot hold."""
    if path is not None:
        clean = [
            {
                name: None if isinstance(value, float) and not isfinite(value) else value
                for name, value in row.items()
            }
            for row in rows
        ]
        path.write_text(json.dumps({"metric": judge.metric, "rows": clean}, indent=2))


if __name__ == "__main__":
    sys.exit(main())
