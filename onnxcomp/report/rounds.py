"""The rounds of a benchmark as a picture: the result's ratios beside the control's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from onnxcomp.report.scales import Scale, padded

if TYPE_CHECKING:
    from collections.abc import Sequence

    from onnxcomp.benchmarking import Benchmark
    from onnxcomp.intervals import Interval

WIDTH, HEIGHT = 520, 150
LEFT, RIGHT, BOTTOM = 70, 504, 112
"""The frame of the plot, in the picture's units."""

ROWS = (34, 84)
"""Middles of the two rows."""

SPREAD = 26
"""Height of a row's dots."""

TURN = 0.618034
"""Of the golden ratio: dots one after the other lie far apart, whatever their number."""

MOST_TICKS = 7

FENCE = 1.5
"""Quartile ranges beyond the quartiles from which a round may be off the scale (Tukey's)."""


@dataclass(frozen=True)
class Row:
    """The rounds of one model against the original.

    Args:
        label: Which model.
        y: The row's middle.
        dots: Places of the rounds, and whether one is off the scale.
        low: Where the interval of the median starts.
        high: Where it ends.
        median: Where the median is.
        text: The median and its interval.
    """

    label: str
    y: float
    dots: tuple[tuple[float, float, bool], ...]
    low: float
    high: float
    median: float
    text: str


@dataclass(frozen=True)
class RoundsPlot:
    """Ratios to the original to the right, the result's above the control's.

    Args:
        ticks: Places and labels.
        one: Where equal times are.
        rows: The result's and the control's.
    """

    ticks: list[tuple[float, str]]
    one: float
    rows: tuple[Row, ...]


def rounds_plot(benchmark: Benchmark) -> RoundsPlot:
    """Return the picture of a benchmark's rounds."""
    rows = (
        ("result", benchmark.latency_ratio, benchmark.latency_ratios),
        ("control", benchmark.control, benchmark.control_ratios),
    )
    ends = [1.0]
    for _, interval, ratios in rows:
        ends += [interval.low, interval.high, *_fences(ratios)]
    scale = Scale(*padded(float(min(ends)), float(max(ends))), LEFT, RIGHT)
    return RoundsPlot(
        ticks=scale.ticks(MOST_TICKS, lambda value: f"{value:g}" if value else "0"),
        one=scale.place(1.0),
        rows=tuple(_row(scale, y, *row) for y, row in zip(ROWS, rows, strict=True)),
    )


def _fences(ratios: Sequence[float]) -> tuple[float, float]:
    """Return between what the rounds lie, outliers apart: a machine that stalls has some."""
    first, third = np.percentile(ratios, (25, 75))
    reach = FENCE * (third - first)
    return max(min(ratios), first - reach), min(max(ratios), third + reach)


def _row(scale: Scale, y: float, label: str, interval: Interval, ratios: tuple[float, ...]) -> Row:
    offsets = [(number * TURN % 1 - 0.5) * SPREAD for number in range(len(ratios))]
    return Row(
        label=label,
        y=y,
        dots=tuple(
            (scale.place(ratio), round(y + offset, 1), not scale.holds(ratio))
            for ratio, offset in zip(ratios, offsets, strict=True)
        ),
        low=scale.place(interval.low),
        high=scale.place(interval.high),
        median=scale.place(interval.median),
        text=f"{interval.median:.3f} [{interval.low:.3f}, {interval.high:.3f}]",
    )
