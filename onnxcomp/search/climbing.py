"""Which pipeline to try next: a line search for each pass, then small moves around the best."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import inf, log
from typing import TYPE_CHECKING

from onnxcomp.search.spaces import ALWAYS, Point, Space, moved, used

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

TRIES, FEWER_TRIES = 5, 3
"""Trials of a line search: along one pass alone, and where another was moved."""

MIDDLING, STRONG, MILD = 0.4, 0.7, 0.15
"""Strengths at which a further pass joins those that are used; mild where middling is too much."""

MOVES = (0.15, 0.08, 0.04)
"""By how much strengths are moved around the best, one size after the other."""

NARROW = 0.02
"""Distance of two strengths that is not worth another trial."""

AIMED = 0.9
"""Share of the floor that a line search aims at: what it expects is uncertain."""

LEAST_STRAIN = 1e-3


@dataclass(frozen=True)
class Standing:
    """What a trial came to.

    Args:
        objective: As small as can be; infinite where the result does not do.
        strain: What it lost over what it may lose; infinite where there is no result.
        reach: Of a pass whose strength was out of reach, by its name, about the value that is not.
    """

    objective: float
    strain: float
    reach: Mapping[str, float] = field(default_factory=dict)


class Climber:
    """Climbs from nothing to the best point that it finds.

    Every pass is tried as strong as the floor lets it be, those first that absorb the error of
    others; a further one joins at a middling strength, then at a greater one or, where that was
    too much, a mild one, while that of the first is found anew; and then strengths are moved a
    little as long as that helps (coordinate search with the line searches of a root finder: what
    is lost grows about geometrically with the strength).

    Args:
        space: The points that there are.
        judge: Tries points, at once where it can, and tells what each came to. Whatever it raises
            ends the climb.
        width: Points that are tried at once.

    Attributes:
        best: The best point so far.
    """

    def __init__(
        self,
        space: Space,
        judge: Callable[[Sequence[Point]], list[Standing]],
        width: int = 1,
    ) -> None:
        self._space = space
        self._judge = judge
        self._width = width
        self._known: dict[Point, Standing] = {}
        self.best = space.start

    def climb(self) -> None:
        """Climb until nothing near is better, or until the judge ends it."""
        self._try([self.best])
        for place in self._space.order:
            self._join(place)
        for move in MOVES:
            before = None
            while before != self.best:
                before = self.best
                self._move(move)

    def _join(self, place: int) -> None:
        """Try a pass that is not used yet, by itself or beside those that are."""
        if not self._space.turns(place):
            self._try([moved(self.best, place, ALWAYS)])
            return
        others = used(self._space, self.best)
        if not others:
            self._line(moved(self.best, place, None), place, 0.0, 1.0, TRIES)
            return
        point, turned = self.best, others[0]
        share = point[turned] or ALWAYS
        self._line(moved(point, place, MIDDLING), turned, 0.0, share, FEWER_TRIES)
        is_borne = any(
            standing.strain <= 1
            for each, standing in self._known.items()
            if each[place] == MIDDLING
        )
        joining = STRONG if is_borne else MILD
        self._line(moved(point, place, joining), turned, 0.0, share, FEWER_TRIES)

    def _move(self, move: float) -> None:
        """Try every strength of the best a little higher and lower; the first makes up for it."""
        places = used(self._space, self.best)
        for place in places[1:]:
            for sign in (1, -1):
                share = (self.best[place] or 0.0) + sign * move
                if not 0 <= share <= 1:
                    continue
                point = moved(self.best, place, round(share, 4))
                first = point[places[0]] or 0.0
                low, high = max(0.0, first - 2 * move), min(1.0, first + 2 * move)
                self._line(point, places[0], low, high, FEWER_TRIES)
        if places:
            first = self.best[places[0]] or 0.0
            self._line(self.best, places[0], first, min(1.0, first + move), FEWER_TRIES)

    def _line(self, point: Point, place: int, low: float, high: float, tries: int) -> None:
        """Look along one pass for the greatest strength that the floor lets it have."""
        for _ in range(-(-tries // self._width)):
            line = {
                share: standing
                for each, standing in self._known.items()
                if (share := each[place]) is not None
                and moved(each, place, None) == moved(point, place, None)
            }
            known = {share: standing.strain for share, standing in line.items()}
            low = max((share for share, strain in known.items() if strain <= 1), default=low)
            above = (share for share, strain in known.items() if strain > 1 and share > low)
            reaches = (self._space.reach(place, each.reach) for each in line.values())
            reach = round(min(reaches, default=inf), 4)
            high = min(high, *above, reach)
            if high - low < NARROW:
                return
            shares = next_shares(low, high, known, self._width)
            if reach not in known and high == reach:
                shares[-1] = reach
            self._try([moved(point, place, round(share, 4)) for share in shares])

    def _try(self, points: Sequence[Point]) -> None:
        wanted = [point for point in points if point not in self._known]
        for point, standing in zip(wanted, self._judge(wanted), strict=True):
            self._known[point] = standing
            if standing.objective < self._known[self.best].objective:
                self.best = point


def next_shares(low: float, high: float, known: dict[float, float], count: int) -> list[float]:
    """Return the strengths between two to try next, so many.

    Args:
        low: The greatest strength that is known to do, or the least that there is.
        high: The least that is known not to, or the greatest that there is.
        known: Strains by strength.
        count: How many; more than one are spread evenly.
    """
    spread = [low + (high - low) * (place + 1) / (count + 1) for place in range(count)]
    # What was not tried is the mildest that there is; a guess that is not made twice.
    first, second = max(known.get(low, 0.0), LEAST_STRAIN), known.get(high)
    is_far = low not in known and sum(1 < strain < inf for strain in known.values()) > 1
    if count > 1 or second is None or second == inf or second <= first or is_far:
        return spread
    share = log(AIMED / first) / log(second / first)
    margin = 0.15
    return [low + (high - low) * min(1 - margin, max(margin, share))]
