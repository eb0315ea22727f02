"""Points on made-up models whose losses are known in closed form."""

from math import inf

import pytest

from onnxcomp.pipeline import available_passes
from onnxcomp.search.climbing import Climber, Standing, next_shares
from onnxcomp.search.spaces import Space

PASSES = available_passes()
SPACE = Space((PASSES["simplify"](), PASSES["prune"](), PASSES["cluster"]()))


class Model:
    """What is lost grows geometrically with the strength of each pass, what is saved linearly."""

    def __init__(self, floor=1.0, pruning=60):
        self.floor = floor
        self.pruning = pruning
        self.tried = []

    def judge(self, points):
        self.tried += points
        return [self.standing(point) for point in points]

    def standing(self, point):
        _, pruned, clustered = (share or 0.0 for share in point)
        strain = (0.01 * 100**clustered + 0.01 * self.pruning**pruned - 0.02) / self.floor
        size = 1 - 0.7 * clustered - 0.25 * pruned
        return Standing(size if strain <= 1 else float("inf"), strain)


def climbed(model, width=1):
    climber = Climber(SPACE, model.judge, width)
    climber.climb()
    return climber.best


def test_two_passes_are_weighed_up():
    model = Model()
    best = climbed(model)
    alone = max(share for _, pruned, share in model.tried if pruned is None and share)
    assert best[1] is not None
    assert model.standing(best).objective < 1 - 0.7 * alone
    assert model.standing(best).objective < 0.35
    assert len(set(model.tried)) == len(model.tried)


def test_what_is_too_much_joins_mildly():
    model = Model(pruning=10**6)
    climbed(model)
    joined = {pruned for _, pruned, _ in model.tried}
    assert {0.4, 0.15} <= joined
    assert max(filter(None, joined)) == 0.4


def test_what_is_borne_joins_more_strongly():
    model = Model()
    climbed(model)
    assert {0.4, 0.7} <= {pruned for _, pruned, _ in model.tried}


class Short(Model):
    """A model of which no pass can take more than so much, and says so."""

    def standing(self, point):
        if (point[2] or 0.0) > 0.3:
            strength = PASSES["cluster"]().strength
            return Standing(inf, inf, {"cluster": strength.at(0.3 + 0.01)})
        return super().standing(point)


@pytest.mark.parametrize("width", [1, 3])
def test_what_is_out_of_reach_is_not_tried_twice(width):
    model = Short()
    best = climbed(model, width)
    assert best[2] == pytest.approx(0.3, abs=0.02)
    alone = [clustered for _, pruned, clustered in model.tried if pruned is None and clustered]
    assert sum(share > 0.3 + 1e-3 for share in alone) <= width + 1


@pytest.mark.parametrize("width", [2, 3])
def test_several_at_once(width):
    model = Model()
    assert model.standing(climbed(model, width)).objective < 0.36


def test_nothing_is_used_where_nothing_is_allowed():
    assert climbed(Model(floor=1e-9)) == SPACE.start


def test_what_raises_ends_the_climb_with_the_best_so_far():
    model = Model()
    found = {}

    def judge(points):
        if len(model.tried) > 3:
            raise TimeoutError
        return model.judge(points)

    climber = Climber(SPACE, judge)
    with pytest.raises(TimeoutError):
        climber.climb()
    found = model.standing(climber.best)
    assert found.objective < 1
    assert found.strain <= 1


def test_a_root_is_aimed_at():
    known = {0.0: 0.01, 1.0: 100.0}
    (share,) = next_shares(0.0, 1.0, known, 1)
    assert 0.4 < share < 0.55
    # A little too strong: it need only be a little milder.
    (share,) = next_shares(0.0, 0.5, {0.5: 1.05}, 1)
    assert 0.4 < share < 0.5
    # What gave no result tells nothing of how far it is.
    (share,) = next_shares(0.0, 0.3, {0.5: inf, 0.3: 1.05}, 1)
    assert 0.25 < share < 0.3
    # Two that were too strong tell of none that is not.
    assert next_shares(0.0, 0.4, {0.5: 2.4, 0.4: 1.05}, 1) == [0.2]
    assert next_shares(0.0, 1.0, {}, 3) == [0.25, 0.5, 0.75]
    assert next_shares(0.2, 0.6, {0.2: 0.1, 0.6: float("inf")}, 1) == [0.4]
