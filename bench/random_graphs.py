"""Does quantizing keep what random graphs compute, and ONNX Runtime's optimiser what comes out?

    python bench/random_graphs.py [--count 500] [--seed 0] [--modes static,dynamic,weights]
        [--simplify] [--bound 0.0088] [--least-snr 15] [--save FOLDER] [--json OUT.json]

Each graph of `onnxcomp.testing.random_model` is quantized in each mode, calibrated on the feeds on
which it is then judged, and not undone where it does not pay, as `compress` would: what is rare
elsewhere is to be seen here. Kinds of failure:

raised     the pass raised
invalid    ONNX's checker complains of the result
refused    ONNX Runtime does not load or run it, optimised or not
ended      the process ended, as it does where ONNX Runtime aborts
optimiser  optimised and unoptimised outputs differ by more than the bound, as a share of the
           range of an output (by default two steps of 8 bits and 0.001), and by more than twice
           what the unoptimised are from the original's: where one step rounds otherwise, others
           move, and in the end the two are as far apart as two models that quantizing spoilt alike
snr        an output is less close to the original's than the least SNR, in dB

Every failure is printed with its seed; `--seed S --count 1` makes it again. Exits 1 on any.
"""

import argparse
import json
import sys
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from math import inf, log10
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnx
from evaluating import Row, finite

from onnxcomp import Context, OnnxcompError, load_model
from onnxcomp.graph import model_bytes
from onnxcomp.passes import Quantize, Simplify
from onnxcomp.runtime import Array, Feed, open_session, read_samples
from onnxcomp.runtime.comparison import OutputSums
from onnxcomp.testing import random_feeds, random_model

FEEDS = 8
SMALLEST_RANGE = 1e-3
"""Of an output; what is all but zero is noise, however large a share of it."""

KINDS = ("raised", "invalid", "refused", "ended", "optimiser", "snr")

Outputs = list[dict[str, Array]]


class Outcome(NamedTuple):
    """What became of one graph in one mode.

    Args:
        failures: What is wrong with the result: kinds, and what was found.
        changed: Whether the pass changed a weight; only then was the result run.
        difference: How far the optimiser took the result, as a share of an output's range.
        snr: Of the worst output, in dB.
    """

    failures: list[tuple[str, str]]
    changed: bool = True
    difference: float | None = None
    snr: float | None = None


def outcomes(arguments: argparse.Namespace) -> Iterator[tuple[int, str, Outcome]]:
    """Give what becomes of each graph in each mode, in another process, which may end."""
    pool = worker()
    for seed in range(arguments.seed, arguments.seed + arguments.count):
        for mode in arguments.modes:
            try:
                yield seed, mode, pool.submit(examined, arguments, seed, mode).result()
            except BrokenProcessPool as error:
                yield seed, mode, Outcome([("ended", str(error))])
                pool = worker()
    pool.shutdown()


def worker() -> ProcessPoolExecutor:
    return ProcessPoolExecutor(1, mp_context=get_context("spawn"))


def examined(arguments: argparse.Namespace, seed: int, mode: str) -> Outcome:
    """Quantize one graph, and look at the result."""
    proto = random_model(seed)
    source = proto.SerializeToString(deterministic=True)
    feeds = random_feeds(proto, seed, FEEDS)
    try:
        result = quantized(source, feeds, mode, simplify=arguments.simplify)
    except Exception as error:  # noqa: BLE001 - whatever it is, the pass should not have raised it
        return Outcome([("raised", f"{type(error).__name__}: {error}")])
    if result is None:
        return Outcome([], changed=False)
    if arguments.save:
        (arguments.save / f"{seed}-{mode}.onnx").write_bytes(result)
    return compared(arguments, source, result, feeds)


def compared(
    arguments: argparse.Namespace, source: bytes, result: bytes, feeds: list[Feed]
) -> Outcome:
    """Compare a result with its original, and with itself as it is without optimisation."""
    failures: list[tuple[str, str]] = []
    try:
        onnx.checker.check_model(result, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        failures.append(("invalid", str(error)))
    original = outputs(source, feeds)
    try:
        optimised, plain = outputs(result, feeds), outputs(result, feeds, optimize=False)
    except OnnxcompError as error:
        return Outcome([*failures, ("refused", str(error))])
    apart = {name: difference(optimised, plain, name) for name in original[0]}
    close = {name: snr(original, optimised, name) for name in original[0]}
    for name, found in apart.items():
        if found > max(arguments.bound, 2 * difference(plain, original, name)):
            failures.append(("optimiser", f"{found:.3g} of the range of {name}"))
    failures += [
        ("snr", f"{found:.1f} dB at {name}")
        for name, found in close.items()
        if found < arguments.least_snr
    ]
    return Outcome(failures, difference=max(apart.values()), snr=min(close.values()))


def quantized(source: bytes, feeds: list[Feed], mode: str, *, simplify: bool) -> bytes | None:
    """Return what the pass makes of a model; None where it changes no weight."""
    model = load_model(source)
    if simplify:
        Simplify().apply(model, Context())
    samples = read_samples(feeds, open_session(source, threads=1).inputs)
    verdicts = Quantize(mode=mode).apply(model, Context(samples))
    return model_bytes(model) if any(each.verdict == "changed" for each in verdicts) else None


def outputs(model: bytes, feeds: list[Feed], *, optimize: bool = True) -> Outputs:
    """Run a model on every feed."""
    session = open_session(model, threads=1, optimize=optimize)
    return [session.run(feed) for feed in feeds]


def difference(one: Outputs, other: Outputs, name: str) -> float:
    """Return the largest difference of two models in an output, as a share of its range.

    The range reaches to 0, as it does for whoever quantizes it.
    """
    first, second = (
        np.concatenate([np.ravel(feed[name]) for feed in each]) for each in (one, other)
    )
    span = max(float(second.max()), 0.0) - min(float(second.min()), 0.0)
    found = float(np.abs(first - second).max()) / max(span, SMALLEST_RANGE)
    return found if np.isfinite(found) else inf


def snr(original: Outputs, result: Outputs, name: str) -> float:
    """Return the SNR of an output over all feeds, in dB."""
    sums = OutputSums(name)
    for one, other in zip(original, result, strict=True):
        sums.add(one[name], other[name])
    found = sums.difference()
    return -20 * log10(found) if found else inf


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--count", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0, help="of the first graph")
    parser.add_argument(
        "--modes", type=lambda text: text.split(","), default="static,dynamic,weights"
    )
    parser.add_argument("--simplify", action="store_true", help="simplify first")
    parser.add_argument("--bound", type=float, default=2 / 255 + 1e-3)
    parser.add_argument("--least-snr", type=float, default=15.0)
    parser.add_argument("--save", type=Path, help="keep what the pass made in this folder")
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


def main() -> int:
    arguments = parsed()
    if arguments.save:
        arguments.save.mkdir(parents=True, exist_ok=True)
    found: dict[str, list[Outcome]] = {mode: [] for mode in arguments.modes}
    for seed, mode, outcome in outcomes(arguments):
        found[mode].append(outcome)
        for kind, said in outcome.failures:
            print(f"seed {seed}, {mode}: {kind}: {said.splitlines()[0]}", flush=True)
    rows = {mode: summary(each) for mode, each in found.items()}
    print_table(rows)
    if arguments.json:
        written = {mode: finite(figures) for mode, figures in rows.items()}
        arguments.json.write_text(json.dumps(written, indent=2))
    return int(any(each.failures for mode in found.values() for each in mode))


def summary(found: list[Outcome]) -> Row:
    """Return counts and quantiles over all graphs in one mode; a graph counts once for a kind."""
    kinds = Counter(kind for each in found for kind in {kind for kind, _ in each.failures})
    apart = np.array([each.difference for each in found if each.difference is not None])
    close = np.array([each.snr for each in found if each.snr is not None])
    figures: Row = {
        "graphs": len(found),
        "changed": sum(each.changed for each in found),
        **{kind: kinds[kind] for kind in KINDS},
    }
    if len(apart):
        figures |= {"apart 50%": float(np.median(apart)), "apart max": float(apart.max())}
        # Of two neighbours the lower, since some results are exact and so infinitely close.
        low, middle = np.quantile(close, (0.05, 0.5), method="lower")
        figures |= {"dB 5%": float(low), "dB 50%": float(middle)}
    return figures


def print_table(rows: dict[str, Row]) -> None:
    titles = max(rows.values(), key=len)
    print(f"{'':10}" + "".join(f"{title:>11}" for title in titles))
    for mode, figures in rows.items():
        words = [
            f"{each:.3g}" if isinstance(each, float) else str(each) for each in figures.values()
        ]
        print(f"{mode:10}" + "".join(f"{word:>11}" for word in words))


if __name__ == "__main__":
    sys.exit(main())
