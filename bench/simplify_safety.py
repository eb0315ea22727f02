"""Which optimizer keeps what a model computes? On ONNX's backend test data and on given models.

Each candidate rewrites each model; a result counts as failed if ONNX's checker complains of it
although it accepts the original, if ONNX Runtime refuses it although it runs the original, if its
interface is another one, or if an output differs by more than rounding. A candidate that gives up
leaves the model as it is, which is harmless.

Run: python bench/simplify_safety.py [MODEL ...] [--only SUBSTRING] [--candidate NAME]
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import NamedTemporaryFile
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnxruntime
from backend_models import Case, cases, forms

from onnxcomp.graph import load_model, model_bytes
from onnxcomp.passes import Simplify
from onnxcomp.pipeline import Context
from onnxcomp.runtime import open_session, synthetic_samples

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROUNDING = 1e-4
"""Largest difference that is rounding, relative to the largest number of an output.

For float16 it is that type's epsilon.
"""


@dataclass
class Tally:
    """What a candidate did to models: how many, by outcome, and which ones it spoilt."""

    models: int = 0
    kept: int = 0
    unrun: int = 0
    gave_up: Counter[str] = field(default_factory=Counter)
    failed: dict[str, list[str]] = field(default_factory=dict)
    nodes_before: int = 0
    nodes_after: int = 0
    bytes_before: int = 0
    bytes_after: int = 0
    largest_growth: int = 0
    worst: float = 0.0
    seconds: float = 0.0

    def fail(self, how: str, what: str) -> None:
        """Note a model that was spoilt."""
        self.failed.setdefault(how, []).append(what)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", type=Path, nargs="*", help="instead of ONNX's test data")
    parser.add_argument("--only", default="", help="models whose name contains this")
    parser.add_argument("--candidate", action="append", choices=CANDIDATES, help="default: all")
    parser.add_argument("--json", type=Path, help="write the figures here")
    arguments = parser.parse_args()
    # Without this ONNX Runtime refuses a tenth of the models, for an opset of the latest ONNX.
    os.environ["ALLOW_RELEASED_ONNX_OPSET_ONLY"] = "0"
    onnxruntime.set_default_logger_severity(4)
    tallies: dict[str, Tally] = {}
    for form, case in chosen(arguments.models, arguments.only):
        before = run(serialised(case.proto), case.feed)
        for name in arguments.candidate or CANDIDATES:
            key = f"{name}: {case.name if arguments.models else form}"
            measure(CANDIDATES[name], case, before, tallies.setdefault(key, Tally()))
    print_table(tallies)
    if arguments.json:
        figures = {name: vars(tally) for name, tally in tallies.items()}
        arguments.json.write_text(json.dumps(figures, indent=1))
    return 0


def chosen(paths: list[Path], only: str) -> Iterator[tuple[str, Case]]:
    for path in paths:
        session = open_session(path)
        (feed,) = synthetic_samples(session, 1, 0)
        yield "given", Case(path.name, onnx.load(path), dict(feed))
    for case in () if paths else cases():
        if only in case.name:
            yield from forms(case)


def measure(
    optimize: Callable[[onnx.ModelProto], onnx.ModelProto],
    case: Case,
    before: list[Any] | None,
    tally: Tally,
) -> None:
    """Let a candidate rewrite one model, and note what is wrong with the result."""
    tally.models += 1
    started = perf_counter()
    private = onnx.ModelProto()
    private.CopyFrom(case.proto)
    try:
        result = optimize(private)
    except Exception as error:  # noqa: BLE001 - a stranger's code; whatever it is, it gave up
        tally.gave_up[f"{type(error).__name__}: {error}".splitlines()[0][:70]] += 1
        return
    finally:
        tally.seconds += perf_counter() - started
    sizes = [each.ByteSize() for each in (case.proto, result)]
    tally.bytes_before += sizes[0]
    tally.bytes_after += sizes[1]
    tally.largest_growth = max(tally.largest_growth, sizes[1] - sizes[0])
    tally.nodes_before += count_nodes(case.proto)
    tally.nodes_after += count_nodes(result)
    if not is_valid(result) and is_valid(case.proto):
        tally.fail("invalid", case.name)
    elif interface(result) != interface(case.proto):
        tally.fail("other interface", case.name)
    elif before is None:
        tally.unrun += 1
    else:
        compare(before, run(serialised(result), case.feed), case.name, tally)


def compare(before: list[Any], after: list[Any] | None, name: str, tally: Tally) -> None:
    if after is None:
        tally.fail("refused", name)
        return
    differences = [difference(one, other) for one, other in zip(before, after, strict=True)]
    worst = max(differences, default=0.0)
    if worst > 1:
        tally.fail("other values", f"{name} ({worst:.1f})")
    else:
        tally.worst = max(tally.worst, worst)
        tally.kept += 1


def difference(one: Any, other: Any) -> float:
    """Return the largest difference of two outputs in units of what is rounding."""
    if isinstance(one, dict):
        one, other = list(one.items()), list(other.items())
    if isinstance(one, list | tuple):
        if not isinstance(other, list | tuple) or len(one) != len(other):
            return float("inf")
        return max((difference(a, b) for a, b in zip(one, other, strict=True)), default=0.0)
    first, second = np.asarray(one), np.asarray(other)
    is_alike = first.shape == second.shape and first.dtype == second.dtype
    if not is_alike or first.dtype.kind not in "fiuc":
        return 0.0 if is_alike and np.array_equal(first, second) else float("inf")
    a, b = first.astype(np.float64), second.astype(np.float64)
    finite = np.isfinite(a)
    if not np.array_equal(a[~finite], b[~finite], equal_nan=True):
        return float("inf")
    scale = np.abs(a[finite]).max(initial=np.finfo(np.float32).tiny)
    rounding = ROUNDING if first.dtype != np.float16 else float(np.finfo(np.float16).eps)
    return float(np.abs(a[finite] - b[finite]).max(initial=0.0) / scale / rounding)


def run(model: bytes, feed: dict[str, Any]) -> list[Any] | None:
    """Run a model as it stands, without graph optimisation; None where that is impossible."""
    onnxruntime.set_seed(1)
    try:
        session = open_session(model, threads=1, optimize=False)
        outputs: list[Any] = session.handle.run(None, feed, session.run_options)
    except Exception:  # noqa: BLE001 - a refusal, in whatever words
        return None
    return outputs


def serialised(proto: onnx.ModelProto) -> bytes:
    data: bytes = proto.SerializeToString(deterministic=True)
    return data


def is_valid(proto: onnx.ModelProto) -> bool:
    try:
        onnx.checker.check_model(proto)
    except (onnx.checker.ValidationError, ValueError):
        return False
    return True


def interface(proto: onnx.ModelProto) -> list[tuple[str, bytes]]:
    """Return names and types of what a caller feeds and is given."""
    held = {each.name for each in proto.graph.initializer}
    fed = [each for each in proto.graph.input if each.name not in held]
    ports = [*fed, *proto.graph.output]
    return [(each.name, each.type.SerializeToString(deterministic=True)) for each in ports]


def count_nodes(proto: onnx.ModelProto) -> int:
    """Count operators, those of bodies and functions too; Constant nodes are data."""
    waiting = [proto.graph, *proto.functions]
    count = 0
    while waiting:
        graph = waiting.pop()
        count += sum(node.op_type != "Constant" for node in graph.node)
        attributes = (each for node in graph.node for each in node.attribute)
        waiting.extend(each.g for each in attributes if each.HasField("g"))
    return count


def by_onnxscript(proto: onnx.ModelProto) -> onnx.ModelProto:
    from onnxscript import optimizer  # noqa: PLC0415 - only this candidate needs it

    return optimizer.optimize(proto, inline=False)


def by_onnxruntime(proto: onnx.ModelProto) -> onnx.ModelProto:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.log_severity_level = 4
    with NamedTemporaryFile(suffix=".onnx") as file:
        options.optimized_model_filepath = file.name
        onnxruntime.InferenceSession(
            serialised(proto), options, providers=["CPUExecutionProvider"]
        )
        return onnx.load(file.name)


def by_simplify(proto: onnx.ModelProto) -> onnx.ModelProto:
    model = load_model(proto)
    Simplify().apply(model, Context())
    return onnx.load_from_string(model_bytes(model))


CANDIDATES: dict[str, Callable[[onnx.ModelProto], onnx.ModelProto]] = {
    "onnxscript": by_onnxscript,
    "onnxruntime": by_onnxruntime,
    "simplify": by_simplify,
}


def print_table(tallies: dict[str, Tally]) -> None:
    titles = ("models", "kept", "failed", "gave up", "not run", "nodes", "bytes", "growth")
    print("worst: the largest difference that was kept, as a share of what counts as rounding\n")
    print(f"{'':36}" + "".join(f"{title:>12}" for title in (*titles, "worst", "seconds")))
    for name, tally in tallies.items():
        figures = (
            tally.models,
            tally.kept,
            sum(map(len, tally.failed.values())),
            tally.gave_up.total(),
            tally.unrun,
            f"{tally.nodes_before}>{tally.nodes_after}",
            f"{tally.bytes_after / max(tally.bytes_before, 1):.4f}",
            tally.largest_growth,
            f"{tally.worst:.1e}",
            f"{tally.seconds:.1f}",
        )
        print(f"{name:36}" + "".join(f"{figure:>12}" for figure in figures))
    for name, tally in tallies.items():
        for how, which in tally.failed.items():
            print(f"{name}: {len(which)} {how}: {', '.join(which)}")
        for how, count in tally.gave_up.most_common(8):
            print(f"{name}: {count} gave up: {how}")


if __name__ == "__main__":
    sys.exit(main())
