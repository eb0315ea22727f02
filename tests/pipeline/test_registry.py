"""Passes of other distributions are found as the built-in ones are."""

from importlib.metadata import EntryPoint
from typing import ClassVar

import pytest

from onnxcomp import Pass, Stage, available_passes, compress
from onnxcomp.cli.commands import command
from onnxcomp.errors import OptionError
from onnxcomp.passes import ALL, Cluster
from onnxcomp.pipeline import parse_recipe, recipe_schema, registry


class Polish(Pass):
    """Do nothing, at the beginning."""

    name: ClassVar[str] = "polish"
    stage: ClassVar[Stage] = Stage.SIMPLIFY

    def apply(self, model, context):
        del context
        return self.candidates(model)[1]


class OtherCluster(Polish):
    """Take the name of another."""

    name: ClassVar[str] = "cluster"


class Run(Polish):
    """Take the name of a command."""

    name: ClassVar[str] = "run"


class Seeded(Polish):
    """Take the name of an option of all commands."""

    name: ClassVar[str] = "seeded"
    seed: int = 0


BUILT_IN = ["simplify", "prune-channels", "factorize", "prune", "cluster", "quantize", "expand"]
MINE = (Polish,)
COMMAND = (Run,)
OPTION = (Seeded,)
CLASH = (OtherCluster,)


@pytest.fixture
def install(monkeypatch):
    """Return a function that adds an entry point of another distribution."""

    def add(attribute):
        points = [
            EntryPoint("builtin", "onnxcomp_passes:ALL", registry.ENTRY_POINTS),
            EntryPoint("theirs", f"{__name__}:{attribute}", registry.ENTRY_POINTS),
        ]
        monkeypatch.setattr(registry, "entry_points", lambda *, group: points)  # noqa: ARG005
        available_passes.cache_clear()

    yield add
    monkeypatch.undo()
    available_passes.cache_clear()


def test_the_built_in_ones():
    assert {cls.name: cls for cls in ALL} == available_passes()
    assert list(available_passes()) == BUILT_IN


def test_a_pass_of_another_distribution(install, models):
    install("MINE")
    assert list(available_passes()) == ["polish", *BUILT_IN]
    assert "polish" in command().commands
    names = [
        each["properties"]["pass"]["const"]
        for each in recipe_schema()["properties"]["passes"]["items"]["oneOf"]
    ]
    assert names == ["polish", *BUILT_IN]
    passes = parse_recipe({"passes": [{"pass": "polish"}, {"pass": "cluster", "bits": 2}]})
    assert passes == (Polish(), Cluster(bits=2))
    steps = compress(models["mlp"].proto, passes).report.steps
    assert [step.status for step in steps] == ["nothing", "applied"]


def test_two_passes_of_one_name(install):
    install("CLASH")
    with pytest.raises(OptionError) as caught:
        available_passes()
    assert str(caught.value) == (
        f"{__name__} and onnxcomp_passes.cluster.cluster both have a pass 'cluster'; uninstall "
        "one of them"
    )


def test_a_distribution_that_does_not_load(install):
    install("MISSING")
    with pytest.raises(
        OptionError, match=r"cannot be loaded \(AttributeError: .*\); mend or uninst"
    ):
        available_passes()


@pytest.mark.parametrize(
    ("attribute", "message"),
    [
        ("COMMAND", "pass 'run' has the name of a command; it needs another"),
        ("OPTION", "pass 'seeded' has options that all commands have: seed"),
    ],
)
def test_names_that_commands_have(install, attribute, message):
    install(attribute)
    with pytest.raises(OptionError) as caught:
        command()
    assert str(caught.value) == message
