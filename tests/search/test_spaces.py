"""Recipes as spaces to choose from."""

from math import inf

import pytest

from onnxcomp.errors import OptionError
from onnxcomp.pipeline import available_passes, available_presets, read_recipe
from onnxcomp.search import Aim, target_file
from onnxcomp.search.preparing import space_of
from onnxcomp.search.spaces import Space

PASSES = available_passes()


@pytest.mark.parametrize("name", available_presets())
def test_presets(name):
    space = Space(read_recipe(available_presets()[name]))
    stages = [one.stage for one in space.passes]
    assert stages == sorted(stages)
    strongest = tuple(1.0 for _ in space.passes)
    assert [one.name for one in space.pipeline(strongest)] == [one.name for one in space.passes]
    assert [one.name for one in space.pipeline(space.start)] == ["simplify"]


def test_every_goal_has_a_preset():
    for goal in ("size", "speed", "balanced"):
        assert space_of(Aim(goal=goal)).order


def test_what_a_recipe_sets_is_not_turned(tmp_path):
    recipe = tmp_path / "mine.toml"
    recipe.write_text('[[passes]]\npass = "prune"\nsparsity = 0.5\n[[passes]]\npass = "cluster"\n')
    space = space_of(Aim(target=str(recipe)))
    assert space.order == [1, 0]
    assert not space.turns(0)
    assert space.turns(1)
    pruned, clustered = space.pipeline((0.9, 0.0))
    assert pruned.sparsity == 0.5
    assert clustered.size_ratio == PASSES["cluster"]().strength.mildest


def test_unknown_targets():
    with pytest.raises(OptionError, match=r"unknown target 'egde'; did you mean 'edge'\?"):
        target_file("egde")


def test_empty_targets(tmp_path):
    recipe = tmp_path / "empty.toml"
    recipe.write_text("passes = []\n")
    with pytest.raises(OptionError, match="has no passes to choose from; add some"):
        space_of(Aim(target=str(recipe)))


def test_what_a_pass_reaches():
    space = Space((PASSES["simplify"](), PASSES["cluster"]()))
    strength = space.passes[1].strength
    assert space.reach(0, {"simplify": 2.0}) == space.reach(1, {"prune": 2.0}) == inf
    told = space.reach(1, {"cluster": 6.0})
    assert strength.at(told) == pytest.approx(6.0, rel=0.05)
    assert strength.at(told) < 6.0
    assert space.reach(1, {"cluster": 1.0}) == 0.0
