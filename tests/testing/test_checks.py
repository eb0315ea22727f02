"""The checks see what they are for: a pass with one fault fails one of them."""

import itertools
from importlib.metadata import EntryPoint
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, ClassVar

import numpy as np
import onnx
import pytest
from pydantic import Field

from onnxcomp import Pass, Stage, Strength, Verdict, available_passes
from onnxcomp.pipeline import registry
from onnxcomp.runtime import open_session
from onnxcomp.testing import check_pass, checks, small_models
from onnxcomp.testing.suite import CHECKS

COUNTER = itertools.count()


class Halve(Pass):
    """Store weights in half precision."""

    name: ClassVar[str] = "halve"
    stage: ClassVar[Stage] = Stage.CODE

    rounds: Annotated[int, Field(ge=1, le=3, description="How often; once is enough.")] = 1

    @property
    def saves_bytes(self):
        return False

    def apply(self, model, context):
        del context
        chosen, verdicts = self.candidates(model)
        return verdicts + [self.halve(model, weight) for weight in chosen]

    def halve(self, model, weight):
        del model
        values = weight.load()
        rounded = values.astype(np.float16).astype(values.dtype)
        weight.tensor.values = rounded
        return self.verdict(weight)

    def verdict(self, weight, **changes):
        fields = {
            "name": weight.name,
            "op_types": weight.op_types,
            "shape": weight.shape,
            "verdict": "changed",
            "reason": "rounded",
            "bytes_before": weight.tensor.nbytes,
            "bytes_after": weight.tensor.nbytes,
            "error": 0.001,
        }
        return Verdict(**fields | changes)


class Undocumented(Halve):
    name: ClassVar[str] = "undocumented"


class Undescribed(Halve):
    """Have an option that nobody explains."""

    name: ClassVar[str] = "undescribed"
    more: int = 1


class Shouting(Halve):
    """Have a name that is no command."""

    name: ClassVar[str] = "Shout it"


class Restless(Halve):
    """Give another result each time."""

    name: ClassVar[str] = "restless"

    def halve(self, model, weight):
        del model
        weight.tensor.values = weight.load() + np.float32(1e-4 * next(COUNTER))
        return self.verdict(weight)


class Greedy(Halve):
    """Change what was excluded."""

    name: ClassVar[str] = "greedy"

    def selects(self, name):
        del name
        return True


class Forgetful(Halve):
    """Lose the user's metadata."""

    name: ClassVar[str] = "forgetful"

    def halve(self, model, weight):
        del model.header.metadata_props[:]
        return super().halve(model, weight)


class Silent(Halve):
    """Say nothing of the tensors that were left alone."""

    name: ClassVar[str] = "silent"

    def apply(self, model, context):
        return [each for each in super().apply(model, context) if each.verdict == "changed"]


class Unsure(Halve):
    """Do not know the error."""

    name: ClassVar[str] = "unsure"

    def verdict(self, weight, **changes):
        return super().verdict(weight, **changes, error=float("nan"))


class Boastful(Halve):
    """Say that bytes are saved where none are."""

    name: ClassVar[str] = "boastful"
    saves_bytes: ClassVar[bool] = True


class Reshaping(Halve):
    """Declare another shape for an output."""

    name: ClassVar[str] = "reshaping"

    def halve(self, model, weight):
        model.outputs[0].shape = ("rows", 10)
        return super().halve(model, weight)


class Destructive(Halve):
    """Make weights that are not numbers."""

    name: ClassVar[str] = "destructive"

    def halve(self, model, weight):
        del model
        weight.tensor.values = np.full(weight.shape, np.nan, weight.dtype)
        return self.verdict(weight)


class Stuck(Halve):
    """Turn nothing."""

    name: ClassVar[str] = "stuck"
    strength: ClassVar[Strength] = Strength("step", 1.0, 1.0)

    step: Annotated[float, Field(gt=0, description="Nothing.")] = 1.0


FAULTS = {
    Undocumented: "undocumented-declaration: the docstring has no first line",
    Undescribed: "undescribed-options_are_described: option 'more' is not described",
    Shouting: "Shout it-declaration: 'Shout it' is no name of a command",
    Restless: "restless-mlp-result: two runs give different bytes",
    Greedy: "greedy-mlp-selection: .* leaves the status at 'applied'",
    Forgetful: "forgetful-mlp-result: the metadata ",
    Silent: "silent-mlp-result: verdicts on ",
    Unsure: "unsure-mlp-result: the verdict on 'w1': error nan",
    Boastful: "boastful-mlp-result: the step was rolled back: the result is not smaller",
    Reshaping: "reshaping-mlp-result: the outputs were changed",
    Destructive: "destructive-mlp-result: the step was rolled back: outputs are not finite",
    Stuck: "stuck-strength: the mildest is the strongest",
}
ALL = (Halve, *FAULTS)


@pytest.fixture
def installed(monkeypatch):
    """Install the passes above in this process; other processes do not have them."""
    points = [EntryPoint("mine", f"{__name__}:ALL", registry.ENTRY_POINTS)]
    monkeypatch.setattr(registry, "entry_points", lambda *, group: points)  # noqa: ARG005
    here = tuple(check for check in CHECKS if check.__name__ != "check_threads")
    monkeypatch.setattr("onnxcomp.testing.suite.CHECKS", here)
    available_passes.cache_clear()
    yield
    monkeypatch.undo()
    available_passes.cache_clear()


@pytest.fixture
def mlp(models):
    return [models["mlp"]]


@pytest.mark.usefixtures("installed")
def test_a_pass_without_faults(mlp):
    check_pass(Halve(), mlp)


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize("cls", FAULTS, ids=lambda cls: cls.name)
def test_a_fault_is_found(cls, mlp):
    with pytest.raises(AssertionError, match=FAULTS[cls]):
        check_pass(cls(), mlp)


def test_a_pass_that_is_not_installed(mlp):
    with pytest.raises(AssertionError, match=r"^halve-declaration: the entry point 'halve' gives"):
        check_pass(Halve(), mlp)


def test_names_of_checks(mlp):
    names = [str(check) for check in checks(Halve(), mlp)]
    assert len(set(names)) == len(names)
    assert {"halve-bounds_are_kept", "halve-mlp-result"} < set(names)


@pytest.mark.parametrize("model", small_models(), ids=lambda model: model.name)
def test_a_small_model_is_valid(model):
    with TemporaryDirectory() as folder:
        source = model.source(Path(folder))
        onnx.checker.check_model(
            source if isinstance(source, bytes) else str(source), full_check=True
        )
        session = open_session(source)
        outputs = [session.run(feed) for feed in model.feeds]
    names = list(outputs[0])
    assert all(np.isfinite(each[name]).all() for each in outputs for name in names)
    assert any(not np.array_equal(outputs[0][name], outputs[1][name]) for name in names)


def test_small_models_are_the_same_each_time():
    first, second = (
        [model.proto.SerializeToString(deterministic=True) for model in small_models()]
        for _ in range(2)
    )
    assert first == second
