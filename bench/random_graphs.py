"""Does quantizing keep what random graphs compute, and ONNX Runtime's optimiser what comes out?

    python bench/random_graphs.py [--count 500] [--seed 0] [--modes static,dynamic,weights]
        [--simplify] [--bound 0.0088] [--least-snr 15] [--save FOLDER] [--json OUT.json]

Each graph of `onnxcomp.testing.random_model` is quantized in each mode, calibrated on the feeds on
which it is then judged, and not undone where it does not pay, as `compress` would: what is rare
elsewhere is to be seen here. Kinds of failure:

raised     the pass raised
invalid    ONNX's checker complains of the result
refused    ONNX Runtime does not load or run it, optimised or not
optimiser  optimised and unoptimised outputs differ by more than the bound, as a share of the
           range of an output (by default two steps of 8 bits and 0.001), and by more than the
           unoptimised differ from the original's: one step that rounds otherwise moves others
snr        an output is less close to the original's than the least SNR, in dB

Every failure is printed with its seed; `--seed S --count 1` makes it again. Exits 1 on any.
"""

import argparse
import json
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from math import inf, log10
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from onnxcomp import Context, OnnxcompError, load_model
from onnxcomp.graph import model_bytes
from onnxcomp.runtime import Array, Feed, open_session, read_samples
from onnxcomp.runtime.comparison import OutputSums
from onnxcomp.testing import random_feeds, random_model
from passes import Quantize, Simplify

FEEDS = 8
SMALLEST_RANGE = 1e-3
"""Of an output; what is all but constant is noise, however large a share of it."""

KINDS = ("raised", "invalid", "refused", "optimiser", "snr")

Outputs = list[dict[str, Array]]


@dataclass
class Tally:
    """What became of the graphs in one mode.

    Args:
        graphs: How many there were.
        changed: In how many the pass changed a weight; only those are run.
        failed: Failures by kind.
        differences: How far the optimiser took each result, as a share of an output's range.
        snrs: Of the worst output of each result, in dB.
    """

    graphs: int = 0
    changed: int = 0
    failed: Counter[str] = field(default_factory=Counter)
    differences: list[float] = field(default_factory=list)
    snrs: list[float] = field(default_factory=list)


def failures(
    arguments: argparse.Namespace, seed: int, mode: str, tally: Tally
) -> Iterator[tuple[str, str]]:
    """Quantize one graph, and give what is wrong with the result: a kind, and what was found."""
    proto = random_model(seed)
    source = proto.SerializeToString(deterministic=True)
    feeds = random_feeds(proto, seed, FEEDS)
    tally.graphs += 1
    try:
        result = quantized(source, feeds, mode, simplify=arguments.simplify)
    except Exception as error:  # noqa: BLE001 - whatever it is, the pass should not have raised it
        yield "raised", f"{type(error).__name__}: {error}"
        return
    if result is None:
        return
    tally.changed += 1
    if arguments.save:
        (arguments.save / f"{seed}-{mode}.onnx").write_bytes(result)
    try:
        onnx.checker.check_model(result, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        yield "invalid", str(error)
    original = outputs(source, feeds)
    try:
        optimised, plain = outputs(result, feeds), outputs(result, feeds, optimize=False)
    except OnnxcompError as error:
        yield "refused", str(error)
        return
    apart = {name: difference(optimised, plain, name) for name in original[0]}
    close = {name: snr(original, optimised, name) for name in original[0]}
    tally.differences.append(max(apart.values()))
    tally.snrs.append(min(close.values()))
    for name, found in apart.items():
        if found > max(arguments.bound, difference(plain, original, name)):
            yield "optimiser", f"{found:.3g} of the range of {name}"
    for name, found in close.items():
        if found < arguments.least_snr:
            yield "snr", f"{found:.1f} dB at {name}"


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
    """Return the largest difference of two models in an output, as a share of its range."""
    first, second = (
        np.concatenate([np.ravel(feed[name]) for feed in each]) for each in (one, other)
    )
    found = float(np.abs(first - second).max() / max(np.ptp(second), SMALLEST_RANGE))
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
    tallies = {mode: Tally() for mode in arguments.modes}
    for seed in range(arguments.seed, arguments.seed + arguments.count):
        for mode, tally in tallies.items():
            for kind, found in failures(arguments, seed, mode, tally):
                tally.failed[kind] += 1
                print(f"seed {seed}, {mode}: {kind}: {found.splitlines()[0]}", flush=True)
    print_table(tallies)
    if arguments.json:
        arguments.json.write_text(json.dumps({k: asdict(each) for k, each in tallies.items()}))
    return int(any(tally.failed for tally in tallies.values()))


def print_table(tallies: dict[str, Tally]) -> None:
    titles = ("graphs", "changed", *KINDS, "apart 50%", "apart max", "dB 5%", "dB 50%")
    print(f"{'':10}" + "".join(f"{title:>11}" for title in titles))
    for mode, tally in tallies.items():
        apart, close = (
            np.array(each) if each else np.full(1, np.nan)
            for each in (tally.differences, tally.snrs)
        )
        figures: list[Any] = [tally.graphs, tally.changed, *(tally.failed[kind] for kind in KINDS)]
        figures += [f"{each:.2g}" for each in (np.median(apart), apart.max())]
        # The lower of two neighbours, since some results are exact and so infinitely close.
        figures += [f"{each:.1f}" for each in np.quantile(close, (0.05, 0.5), method="lower")]
        print(f"{mode:10}" + "".join(f"{figure:>11}" for figure in figures))


if __name__ == "__main__":
    sys.exit(main())
