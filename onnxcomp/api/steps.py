"""One step of a pipeline: apply a pass to a copy, check the copy, keep it or not."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from time import perf_counter
from typing import TYPE_CHECKING, Any

from onnxcomp.api.workbench import Workbench, complaint
from onnxcomp.errors import ModelError, OnnxcompError, PassError
from onnxcomp.graph import copy_model, count_bytes, load_model
from onnxcomp.pipeline import Context, Pass, recipe
from onnxcomp.report import Step
from onnxcomp.runtime.coded import read_codes
from onnxcomp.validation import validate

if TYPE_CHECKING:
    from pathlib import Path

    from onnxcomp.graph import Model
    from onnxcomp.runtime import Samples
    from onnxcomp.validation import Validation
    from onnxcomp.verdicts import Verdict

Progress = Callable[[str, float], None]
"""Told what is being done, and the share of it that is done, 0 to 1."""

RECIPE = "onnxcomp.recipe"
VERSION = "onnxcomp.version"
SOURCE = "onnxcomp.source_sha256"

MOST_ENTRIES = 2
"""Of a decision that a table shows."""

CLAIM_BYTES, CLAIM_SHARE = 1024, 0.05
"""By how much a file may shrink less than a pass says: bytes for each tensor, or a share."""


@dataclass(frozen=True)
class Origin:
    """What every step is checked against.

    Args:
        model: The original, as ONNX Runtime opens it.
        is_valid: Whether ONNX's checker accepts the original.
        sha256: Of the original's files.
        version: Of onnxcomp.
        samples: What both are fed; None where nothing is to be run.
        evaluator: The task metric; None where none is asked for.
        validate: Whether results are run and compared.
        providers: Execution providers to check on.
        threads: Threads of a run; 0 leaves it to ONNX Runtime.
    """

    model: bytes | Path
    is_valid: bool
    sha256: str
    version: str
    samples: Samples | None
    evaluator: Callable[..., Any] | None
    validate: bool
    providers: tuple[str, ...]
    threads: int


@dataclass(frozen=True)
class Outcome:
    """What a step came to: its record, the model to go on with, and how close that is."""

    step: Step
    model: Model
    validation: tuple[Validation, ...]


def take_step(
    one: Pass,
    model: Model,
    *,
    origin: Origin,
    context: Context,
    bench: Workbench,
    progress: Progress,
) -> Outcome:
    """Apply a pass to a copy of a model, and keep the copy if it is as good as promised.

    Raises:
        PassError: The pass failed.
    """
    started = perf_counter()
    bench.forget()
    copied = copy_model(model)
    decided: list[Pass] = []
    told = replace(
        context, progress=lambda share: progress(one.name, share), decide=decided.extend
    )
    verdicts = apply_pass(one, copied, told)
    step = Step(
        name=one.name,
        options=one.model_dump(mode="json"),
        status="nothing",
        reason="",
        seconds=perf_counter() - started,
        tensors=verdicts,
    )
    removed = model.count_nodes() - copied.count_nodes()
    if not step.changed and removed <= 0:
        return Outcome(step, model, ())
    saved = count_bytes(model) - count_bytes(copied)
    untrue = _untrue_claim(step, saved)
    if untrue is not None:
        return _undone(step, model, untrue)
    _sign(copied, decided or (one,), origin)
    if one.saves_bytes and count_bytes(copied) >= count_bytes(model):
        return _undone(step, model, "the result is not smaller")
    effects = [*_decisions(one, decided), *_side_effects(model, copied)]
    step = step.model_copy(update={"reason": "; ".join(effects)})
    problem, validation = _check(copied, origin, bench, progress)
    if problem is not None:
        return _undone(step, model, problem)
    return Outcome(step.model_copy(update={"status": "applied"}), copied, validation)


def _untrue_claim(step: Step, saved: int) -> str | None:
    """Return what a pass says that it saved, where the file tells otherwise; None if it does not.

    Args:
        step: Its record.
        saved: Bytes by which the file shrank.
    """
    claimed = sum(each.bytes_before - each.bytes_after for each in step.changed)
    # Names, shapes and declarations take some bytes more or less, for each tensor.
    if claimed - saved <= max(CLAIM_BYTES * (1 + len(step.changed)), CLAIM_SHARE * claimed):
        return None
    return f"the pass says that it saves {claimed} bytes, but the file has {saved} fewer"


def apply_pass(one: Pass, model: Model, context: Context) -> tuple[Verdict, ...]:
    """Apply a pass to a model, in place.

    Raises:
        PassError: The pass failed in a way that it did not foresee.
    """
    try:
        return tuple(one.apply(model, context))
    except OnnxcompError:
        raise
    except Exception as error:
        text = " ".join(str(error).split())
        raise PassError(f"pass {one.name!r} failed: {type(error).__name__}: {text}") from error


def _decisions(one: Pass, decided: Sequence[Pass]) -> list[str]:
    """Say what a pass decided by measuring: the options in which the decision differs from it.

    The recipe has long lists in full; options that the decision stands for are None in it.
    """
    asked = one.model_dump(mode="json")
    return [
        f"decided on {key} = {_shortened(value)}"
        for each in decided
        for key, value in each.model_dump(mode="json").items()
        if value is not None and asked.get(key) != value
    ]


def _shortened(value: object) -> object:
    if isinstance(value, list) and len(value) > MOST_ENTRIES:
        return f"{len(value)} entries, in the recipe"
    return value


def _side_effects(model: Model, copied: Model) -> list[str]:
    """Say what a pass did besides changing weights."""
    before, after = model.count_nodes(), copied.count_nodes()
    effects = []
    if copied.opset != model.opset:
        effects.append(f"opset raised from {model.opset} to {copied.opset}")
    former = {each.name: each.dtype for each in (*model.inputs, *model.outputs)}
    effects += [
        f"{name} is {each.dtype} (scale {each.scale:.6g}, zero point {each.zero_point})"
        for name, each in read_codes(copied.metadata).items()
        if former.get(name) != each.dtype
    ]
    if after < before:
        effects.append(f"{before - after} of {before} nodes removed")
    return effects


def _undone(step: Step, model: Model, reason: str) -> Outcome:
    """Return the outcome of a step that did not happen: nothing was changed after all."""
    tensors = tuple(
        each.model_copy(
            update={
                "verdict": "skipped",
                "reason": f"undone: {reason}",
                "bytes_after": each.bytes_before,
                "error": None,
            }
        )
        if each.verdict == "changed"
        else each
        for each in step.tensors
    )
    update = {"status": "rolled_back", "reason": reason, "tensors": tensors}
    return Outcome(step.model_copy(update=update), model, ())


def _check(
    candidate: Model, origin: Origin, bench: Workbench, progress: Progress
) -> tuple[str | None, tuple[Validation, ...]]:
    """Return what is wrong with a candidate, if anything, and how close its outputs are."""
    if not origin.validate and candidate.is_external:
        # The checker would need the files, and whoever declines to validate wants no more of them.
        return None, ()
    runnable = bench.runnable(candidate)
    if origin.is_valid:
        complained = complaint(runnable)
        if complained is not None:
            return f"the result is not valid: {complained}", ()
    if origin.samples is None or not origin.validate:
        return None, ()
    validation = validate(
        origin.model,
        runnable,
        origin.samples,
        origin.providers,
        origin.threads,
        progress=lambda share: progress("validating", share),
    )
    problems = (each.problem for each in validation)
    return next((each for each in problems if each is not None), None), validation


def recipe_of(model: Any) -> dict[str, Any]:
    """Return the recipe that made a file of ours, as plain data for `parse_recipe`.

    What a pass decided by measuring is in it as decided, so that it gives the same bytes again.

    Args:
        model: As for `compress`.

    Raises:
        ModelError: The model cannot be read or carries no recipe.
    """
    graph = load_model(model)
    text = graph.metadata.get(RECIPE)
    if text is None:
        raise ModelError(f"{model!s} carries no recipe; files that onnxcomp wrote do")
    found = carried_recipe(graph)
    if found is None:
        raise ModelError(f"the recipe that {model!s} carries is damaged; {text[:80]!r} is no JSON")
    return found


def carried_recipe(model: Model) -> dict[str, Any] | None:
    """Return the recipe in a model's metadata; None where there is none that can be read."""
    try:
        found = json.loads(model.metadata.get(RECIPE, ""))
    except ValueError:
        return None
    return found if isinstance(found, dict) and isinstance(found.get("passes"), list) else None


def _sign(model: Model, passes: Sequence[Pass], origin: Origin) -> None:
    """Write into the model's metadata how it was made, after what is there already."""
    metadata = model.metadata
    made = [*(carried_recipe(model) or {"passes": []})["passes"], *recipe(passes)["passes"]]
    model.set_metadata(RECIPE, json.dumps({"passes": made}, separators=(",", ":")))
    model.set_metadata(VERSION, origin.version)
    if SOURCE not in metadata:
        model.set_metadata(SOURCE, origin.sha256)
