"""Axes: where a value is on a plot, and which values are written beside it."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, floor, log10
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

STEPS = (1, 2, 5, 10)
"""Distances of ticks that people count in, times a power of ten."""


@dataclass(frozen=True)
class Scale:
    """One axis of a plot.

    Args:
        low: The value at ``start``; above 0 on a logarithmic scale.
        high: The value at ``end``; above ``low``.
        start: Where the axis starts, in the picture's units.
        end: Where it ends; may be below ``start``.
        is_logarithmic: Whether equal ratios are equally far apart, rather than differences.
    """

    low: float
    high: float
    start: float
    end: float
    is_logarithmic: bool = False

    def place(self, value: float) -> float:
        """Return where a value is; beyond an end, that end."""
        share = self._share(min(max(value, self.low), self.high))
        return round(self.start + share * (self.end - self.start), 1)

    def holds(self, value: float) -> bool:
        """Whether a value is within the ends."""
        return self.low <= value <= self.high

    def ticks(self, most: int, label: Callable[[float], str]) -> list[tuple[float, str]]:
        """Return places and labels of round values, at most so many."""
        values = list(self._decades(most) if self.is_logarithmic else self._steps(most))
        return [(self.place(value), label(value)) for value in values]

    def _share(self, value: float) -> float:
        if self.is_logarithmic:
            return log10(value / self.low) / log10(self.high / self.low)
        return (value - self.low) / (self.high - self.low)

    def _steps(self, most: int) -> Iterator[float]:
        power = 10.0 ** floor(log10((self.high - self.low) / most))
        fitting = (
            step * power for step in STEPS if (self.high - self.low) / (step * power) < most
        )
        distance = next(fitting, 10 * power)
        first = ceil(self.low / distance)
        for number in range(first, floor(self.high / distance) + 1):
            # Rounded, so that it is 0.3 and not 0.30000000000000004.
            yield float(f"{number * distance:.12g}")

    def _decades(self, most: int) -> Iterator[float]:
        """Yield 1, 2 and 5 of each power of ten, or fewer of them where those are too many."""
        powers = range(floor(log10(self.low)), ceil(log10(self.high)) + 1)
        for digits in ((1, 2, 5), (1, 3), (1,)):
            values = [digit * 10.0**power for power in powers for digit in digits]
            held = [value for value in values if self.holds(value)]
            if len(held) <= most:
                break
        # Within so little, equal ratios are nearly equal differences.
        yield from held if len(held) > 1 else self._steps(most)


def padded(low: float, high: float, share: float = 0.06) -> tuple[float, float]:
    """Return ends with some room beyond the values, never equal."""
    room = (high - low) * share or abs(high) * share or 1.0
    return low - room, high + room
