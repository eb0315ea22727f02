"""Does removing channels that were made dead leave a model's outputs as they were?

    python bench/channel_removal.py [--count 500] [--seed 0] [--models FOLDER] [--backend]
        [--bound 1e-5] [--share 0.4] [--json OUT.json]

Looks at random graphs of `onnxcomp.testing.random_model`, at as many of operators that move
channels (`channel_graphs.py`), at every model of a folder, and at the models of ONNX's backend
data: as they are, with weights where there are none, and between layers that mix every axis of
what they take and give (`backend_between.py`). In each, a random choice of channels of every group
is made dead by setting the weights that consume them to zero; then they are removed. Kinds of
failure:

raised     finding or removing them raised
invalid    ONNX's checker complains of the result
refused    ONNX Runtime runs the dead model, but not the result, optimised or not
outputs    an output differs by more than the bound, as a share of the range of that output, and
           by more than twice what ONNX Runtime's optimiser makes of the dead model's

Also says how much of each model lies in groups: the share of the elements of its weights, and of
the multiplications with them, that can be removed along some axis. Exits 1 on any failure.
"""

import argparse
import json
import sys
from collections import Counter
from collections.abc import Iterator
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx
from backend_between import between_layers, with_weights
from backend_models import cases, forms
from channel_graphs import random_channel_model

from onnxcomp import OnnxcompError, load_model
from onnxcomp.graph import Constant, Model, model_bytes
from onnxcomp.runtime import Feed, open_session, synthetic_samples
from onnxcomp.testing import random_feeds, random_model
from onnxcomp_passes.prune_channels import Group, find_groups, remove
from onnxcomp_passes.prune_channels.shapes import measure

SMALLEST_RANGE = 1e-3
"""Of an output; what is all but zero is noise, however large a share of it."""

KINDS = ("raised", "invalid", "refused", "outputs")

LAYERS = {"Conv", "ConvTranspose", "Gemm", "MatMul", "LSTM", "GRU"}


class Case(NamedTuple):
    """A model and what it is fed; synthetic samples where that is None."""

    name: str
    source: Any
    feeds: list[Feed] | None


class Outcome(NamedTuple):
    """What became of one model.

    Args:
        failures: Kinds, and what was found.
        groups: Groups of channels.
        removed: Channels that were removed.
        difference: The largest, as a share of an output's range; None where nothing was removed.
        weights: Share of the elements of weights that lie in groups.
        products: Share of the multiplications with them.
    """

    failures: list[tuple[str, str]]
    groups: int = 0
    removed: int = 0
    difference: float | None = None
    weights: float = 0.0
    products: float = 0.0


def examined(case: Case, seed: int, bound: float, share: float) -> Outcome:
    """Make channels of a model dead, remove them, and look at the result."""
    try:
        model = load_model(case.source)
        groups, _ = find_groups(model, case.feeds[0] if case.feeds else None)
        weights, products = shares(model, groups, case.feeds)
        outcome = Outcome([], len(groups), 0, None, weights, products)
        if not groups:
            return outcome
        numbers = np.random.default_rng(seed)
        groups = [group for group in groups if can_be_dead(group)]
        kept = [chosen(group, numbers, share) for group in groups]
        kill(groups, kept)
        dead = model_bytes(model)
        remove(model, groups, kept)
        result = model_bytes(model)
    except Exception as error:  # noqa: BLE001 - whatever it is, it should not have been raised
        return Outcome([("raised", f"{type(error).__name__}: {error}")])
    removed = sum(int((~each).sum()) for each in kept)
    failures, difference = compared(case, dead, result, bound)
    return outcome._replace(failures=failures, removed=removed, difference=difference)


def chosen(group: Group, numbers: np.random.Generator, share: float) -> np.ndarray:
    """Choose what stays of a group: not all, and not none."""
    kept = numbers.random(group.count) >= share
    one, other = numbers.choice(group.count, 2, replace=False)
    kept[one], kept[other] = True, False
    return kept


def can_be_dead(group: Group) -> bool:
    """Tell whether all that consumes channels is constant, and not computed from constants."""
    consuming, constant = (
        {id(use.node) for part in parts for use in part.uses if use.role == "consumes"}
        for parts in (group.tensors, group.weights)
    )
    return consuming <= constant


def kill(groups: list[Group], kept: list[np.ndarray]) -> None:
    """Set to zero what consumes the channels that do not stay."""
    for group, mask in zip(groups, kept, strict=True):
        for part in group.weights:
            if any(use.role == "consumes" for use in part.uses):
                values = part.tensor.values.copy()
                index = [slice(None)] * values.ndim
                index[part.axis] = part.places[~mask].ravel()
                values[tuple(index)] = 0
                part.tensor.values = values


def compared(
    case: Case, dead: bytes, result: bytes, bound: float
) -> tuple[list[tuple[str, str]], float | None]:
    """Compare the model with dead channels and the one without them, optimised and not."""
    failures = []
    wrong = complaint(result)
    if wrong and not complaint(dead):
        failures.append(("invalid", wrong))
    try:
        feeds = case.feeds or list(synthetic_samples(open_session(dead, threads=1), 2, 0))
        before = [outputs(dead, feeds, optimize=optimize) for optimize in (True, False)]
    except OnnxcompError:
        return failures, None
    if not all(finite(each) for side in before for each in side.values()):
        # Zero times infinity is no zero: the channels are not dead.
        return failures, None
    try:
        after = [outputs(result, feeds, optimize=optimize) for optimize in (True, False)]
    except OnnxcompError as error:
        return [*failures, ("refused", str(error))], None
    difference = 0.0
    for name in before[0]:
        noise = apart(before[0][name], before[1][name])
        for optimize, one, other in zip((True, False), before, after, strict=True):
            found = apart(one[name], other[name])
            difference = max(difference, found)
            if not found <= max(bound, 2 * noise):
                failures.append(("outputs", f"{found:.3g} of the range of {name}, {optimize=}"))
    return failures, difference


def complaint(model: bytes) -> str:
    """Return what ONNX's checker has to say against a model."""
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        return str(error)
    return ""


def outputs(model: bytes, feeds: list[Feed], *, optimize: bool) -> dict[str, list[Any]]:
    """Run a model on every feed."""
    session = open_session(model, threads=1, optimize=optimize)
    found = [session.run(feed) for feed in feeds]
    return {name: [each[name] for each in found] for name in found[0]}


def finite(arrays: list[Any]) -> bool:
    """Tell whether arrays hold neither infinity nor NaN."""
    return all(np.isfinite(each).all() for each in arrays if each.dtype.kind == "f")


def apart(before: list[Any], after: list[Any]) -> float:
    """Return the largest difference, as a share of the range; infinite where shapes differ."""
    if any(one.shape != other.shape for one, other in zip(before, after, strict=True)):
        return float("inf")
    if before[0].dtype.kind not in "fiub":
        return 0.0 if all(map(np.array_equal, before, after)) else float("inf")
    one, other = (
        np.concatenate([each.ravel().astype(np.float64) for each in side])
        for side in (before, after)
    )
    if not one.size or np.array_equal(one, other, equal_nan=True):
        return 0.0
    span = max(one.max(), 0.0) - min(one.min(), 0.0)
    return float(np.abs(one - other).max() / max(span, SMALLEST_RANGE))


def shares(model: Model, groups: list[Group], feeds: list[Feed] | None) -> tuple[float, float]:
    """Return the share of weights, and of multiplications with them, that lies in groups."""
    free: Counter[tuple[int, int]] = Counter()
    for part in (each for group in groups for each in group.weights):
        free[id(part.tensor), part.axis] += part.places.size
    shapes = measure(model, feeds[0] if feeds else None).shapes
    totals, removable = np.zeros(2), np.zeros(2)
    for node in model.nodes:
        for place, weight in enumerate(node.inputs[:3]):
            is_weight = isinstance(weight, Constant) and len(weight.shape) > 1
            if node.op not in LAYERS or not is_weight or not prod(weight.shape):
                continue
            positions = prod(shapes.get(id(node.outputs[0]), ()))
            channels = max(weight.shape) if place == 0 else weight.shape[0]
            if node.op in {"Gemm", "MatMul"}:
                channels = weight.shape[-1]
            size = prod(weight.shape)
            figures = np.array([size, size * positions / max(channels, 1)])
            totals += figures
            axes = range(len(weight.shape))
            removable += figures * max(
                free[id(weight), each] / weight.shape[each] for each in axes
            )
    return tuple((removable / np.maximum(totals, 1)).tolist())


def looked_at(arguments: argparse.Namespace) -> Iterator[tuple[str, Case]]:
    """Give the kind of each model, and the model."""
    for seed in range(arguments.seed, arguments.seed + arguments.count):
        proto = random_model(seed)
        yield "random", Case(f"seed {seed}", proto, random_feeds(proto, seed, 2))
        proto = random_channel_model(seed)
        yield "moving", Case(f"moving {seed}", proto, random_feeds(proto, seed, 2))
    for path in sorted(arguments.models.glob("*.onnx")) if arguments.models else ():
        yield "models", Case(path.name, path, None)
    for case in cases() if arguments.backend else ():
        made = {"between layers": between_layers(case), "with weights": with_weights(case)}
        for form, each in (*forms(case), *made.items()):
            if each is not None:
                plain = all(isinstance(value, np.ndarray) for value in each.feed.values())
                feeds = [each.feed] if plain else None
                yield f"backend {form}", Case(f"{case.name} {form}", each.proto, feeds)


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--count", type=int, default=500, help="of random graphs")
    parser.add_argument("--seed", type=int, default=0, help="of the first graph")
    parser.add_argument("--models", type=Path, help="a folder of models")
    parser.add_argument("--backend", action="store_true", help="ONNX's backend data too")
    parser.add_argument("--bound", type=float, default=1e-5)
    parser.add_argument("--share", type=float, default=0.4, help="of channels that are removed")
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


def main() -> int:
    arguments = parsed()
    found: dict[str, list[tuple[str, Outcome]]] = {}
    for kind, case in looked_at(arguments):
        outcome = examined(case, arguments.seed, arguments.bound, arguments.share)
        found.setdefault(kind, []).append((case.name, outcome))
        for failure, said in outcome.failures:
            print(f"{case.name}: {failure}: {said.splitlines()[0]}", flush=True)
        if kind == "models":
            print(
                f"{case.name:28} {outcome.groups:3} groups {outcome.removed:6} removed"
                f"   weights {outcome.weights:6.1%}   products {outcome.products:6.1%}"
                f"   difference {outcome.difference or 0:.2g}",
                flush=True,
            )
    rows = {kind: summary([each for _, each in outcomes]) for kind, outcomes in found.items()}
    for kind, figures in rows.items():
        print(f"{kind:8}", "  ".join(f"{title} {value:.3g}" for title, value in figures.items()))
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=2))
    return int(any(each.failures for outcomes in found.values() for _, each in outcomes))


def summary(outcomes: list[Outcome]) -> dict[str, float]:
    """Return counts over all models of a kind; a model counts once for each kind of failure."""
    kinds = Counter(kind for each in outcomes for kind in {kind for kind, _ in each.failures})
    apart_ = [each.difference for each in outcomes if each.difference is not None]
    return {
        "models": len(outcomes),
        "with groups": sum(each.groups > 0 for each in outcomes),
        "run": len(apart_),
        "channels removed": sum(each.removed for each in outcomes),
        "difference max": max(apart_, default=0.0),
        **{kind: kinds[kind] for kind in KINDS},
    }


if __name__ == "__main__":
    sys.exit(main())
