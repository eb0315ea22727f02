"""What scripts that judge results by an evaluator have in common: the judging, and the table.

Where the evaluator's module has NAME_items(predict) and NAME_metric(items), the drop gets a 95 %
interval (paired bootstrap over items); where it has NAME_snr(predict_original, predict_result),
its number is the column `task_snr`. `snr_db` is that of the worst output on the evaluator's own
feeds.
"""

import argparse
import json
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from math import isfinite
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from onnxcomp import Settings, compare
from onnxcomp.intervals import Interval
from onnxcomp.runtime import Array, open_session
from onnxcomp.runtime.comparison import OutputSums
from onnxcomp.runtime.dtypes import is_float
from onnxcomp.runtime.evaluation import Predictor
from onnxcomp.runtime.samples import cast_feed
from onnxcomp.validation import load_evaluator

MOST_FEEDS = 64
RESAMPLES = 2000

COMPARED = 16
"""Samples on which a result is checked for validity; the evaluator's own feeds are many more."""

Row = dict[str, Any]


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
        self.model = model
        self.evaluator = load_evaluator(reference)
        self.name = reference.rpartition(":")[2]
        self.threads = threads
        self.predict = predictor(model, threads)
        recorder = Recorder(self.predict)
        self.metric, self.resampled = self._evaluated(recorder)
        self.feeds = recorder.kept

    def figures(self, result: Path) -> Row:
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
            return float(np.mean(self.evaluator(predict))), None
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


def against_original(original: Path, result: Path, data: str, threads: int) -> Row:
    """Check a result, and time it, against the model as it came; a `status` if it is not valid."""
    settings = Settings(samples=COMPARED, threads=threads)
    report = compare(original, result, data=data, settings=settings)
    timed, problem = report.benchmark[0], report.validation[0].problem
    return {
        "bytes": report.output.bytes,
        "size_ratio": report.size_ratio,
        "latency_ratio": triple(timed.latency_ratio),
        "latency_control": triple(timed.control),
        "cpu_ratio": triple(timed.cpu_ratio),
        "cpu_control": triple(timed.cpu_control),
        **({} if problem is None else {"status": f"invalid: {problem}"}),
    }


def triple(interval: Interval) -> tuple[float, float, float]:
    """Return a median and the ends of its interval, as `shown` takes them."""
    return interval.median, interval.low, interval.high


def judging_parser(description: str) -> argparse.ArgumentParser:
    """Return a parser of what every script that judges results takes."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--data", required=True)
    parser.add_argument("--evaluate", required=True)
    parser.add_argument("--simplify", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--samples", type=int, help="use the first so many of the data")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--save", type=Path, help="keep the results in this folder")
    parser.add_argument("--json", type=Path)
    return parser


@contextmanager
def results_folder(kept: Path | None) -> Iterator[Path]:
    """Give the folder that results are kept in, or one that goes away."""
    with TemporaryDirectory() as temporary:
        folder = kept or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        yield folder


def tabulate(judge: Judge, rows: Iterable[Row], path: Path | None) -> list[Row]:
    """Print each row when it comes, and a table at the end; return the rows.

    The file is written anew with every row, so that what is known survives what fails later.
    """
    done: list[Row] = []
    for row in rows:
        done.append(row)
        print(*map(shown, row.values()), file=sys.stderr, flush=True)
        write(path, judge, done)
    table = Table(*(done[0] if done else ()), title=f"{judge.model}: metric {judge.metric:.4f}")
    for row in done:
        table.add_row(*map(shown, row.values()))
    Console(width=200).print(table)
    return done


def shown(value: Any) -> str:
    """Return a value as a cell holds it; of three, the last two are an interval."""
    if isinstance(value, tuple):
        median, low, high = value
        return f"{median:.3g} ({low:.3g} {high:.3g})"
    return "-" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)


def is_safe(row: Row) -> bool:
    """Tell whether a result of ours is valid and no larger than the model."""
    return row["status"] in {"applied", "nothing"} and row["size_ratio"] >= 1


def write(path: Path | None, judge: Judge, rows: list[Row]) -> None:
    """Write what is known so far."""
    if path is not None:
        figures = {"metric": judge.metric, "rows": [finite(row) for row in rows]}
        path.write_text(json.dumps(figures, indent=2))


def finite(row: Row) -> Row:
    """Return a row with None for what JSON cannot hold."""
    return {
        name: None if isinstance(value, float) and not isfinite(value) else value
        for name, value in row.items()
    }
