"""The pipelines that a search chooses from: passes of a recipe, each left out or so strong."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING

from onnxcomp.pipeline import Stage

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from onnxcomp.pipeline import Pass

Point = tuple[float | None, ...]
"""For each pass its strength, 0 to 1; None where it is left out."""

ALWAYS = 1.0
"""The strength of a pass that has none to turn."""

REACH_ROOM = 0.01
"""By how much less than what a pass says that it reaches is asked of it."""


@dataclass(frozen=True)
class Space:
    """Passes that a search may use, in the order of the pipeline.

    Args:
        passes: As a recipe configures them. One that simplifies is always used; what a recipe
            sets a pass's strength to is not turned.
    """

    passes: tuple[Pass, ...]

    @property
    def start(self) -> Point:
        """The point at which every pass that may be left out is."""
        return tuple(ALWAYS if each.stage == Stage.SIMPLIFY else None for each in self.passes)

    @property
    def order(self) -> list[int]:
        """Places of the passes that may be left out, those first that absorb the others' error."""
        optional = [place for place, share in enumerate(self.start) if share is None]
        return sorted(optional, key=lambda place: -self.passes[place].stage)

    def turns(self, place: int) -> bool:
        """Whether the pass at a place may be more or less strong."""
        one = self.passes[place]
        return one.strength is not None and one.strength.option not in one.model_fields_set

    def pipeline(self, point: Point) -> tuple[Pass, ...]:
        """Return the passes of a point, set up."""
        return tuple(
            one.at(share) if self.turns(place) else one
            for place, (one, share) in enumerate(zip(self.passes, point, strict=True))
            if share is not None
        )

    def reach(self, place: int, told: Mapping[str, float]) -> float:
        """Return the greatest share of its strength that a pass reaches, as far as it told.

        Args:
            place: Of the pass.
            told: Values of strengths by the names of passes.
        """
        one = self.passes[place]
        if one.strength is None or one.name not in told:
            return inf
        # A little less, since it is told about.
        return max(0.0, one.strength.share_of(told[one.name]) - REACH_ROOM)


def moved(point: Point, place: int, share: float | None) -> Point:
    """Return a point with another strength at a place."""
    return (*point[:place], share, *point[place + 1 :])


def used(space: Space, point: Point) -> Sequence[int]:
    """Return the places whose strength a point turns, in the order of `Space.order`."""
    return [place for place in space.order if point[place] is not None and space.turns(place)]
