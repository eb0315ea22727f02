"""What a search tried, as a picture: bytes against what they cost."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING

from onnxcomp.report.scales import Scale, padded
from onnxcomp.report.tables import size
from onnxcomp.report.trials import pipeline_in_words

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from onnxcomp.report.records import Report, Search, Trial

WIDTH, HEIGHT = 520, 356
LEFT, RIGHT, TOP, BOTTOM = 62, 504, 36, 304
"""The frame of the plot, in the picture's units."""

MOST_TICKS = 6

ROOM = 1.15
"""Between the outermost points and the frame, as a ratio of bytes."""

OFF_SCALE = 2.0
"""Costs beyond so many times the worst that was kept are drawn at the edge."""


@dataclass(frozen=True)
class Costed:
    """A trial that gave a result of which the cost is known.

    Args:
        trial: The trial.
        bytes: Of its result.
        cost: What the result costs; less is better.
    """

    trial: Trial
    bytes: int
    cost: float


@dataclass(frozen=True)
class Point:
    """A candidate, or the original, on the plot.

    Args:
        x: Where it is, from the left.
        y: Where it is, from the top.
        kind: ``kept``, ``missed`` or ``original``.
        text: What there is to say of it, in a line.
        is_chosen: Whether its result left.
        is_off_scale: Whether it costs more than the plot shows.
    """

    x: float
    y: float
    kind: str
    text: str
    is_chosen: bool = False
    is_off_scale: bool = False


@dataclass(frozen=True)
class ParetoPlot:
    """Bytes to the right, what they cost upwards: best is down and left.

    Args:
        title: What is shown.
        y_title: What the cost is.
        x_ticks: Places and labels.
        y_ticks: Likewise.
        points: The candidates and the original, the chosen one last, so that it is on top.
        front: Corners of the line below which no candidate is.
    """

    title: str
    y_title: str
    x_ticks: list[tuple[float, str]]
    y_ticks: list[tuple[float, str]]
    points: tuple[Point, ...]
    front: tuple[tuple[float, float], ...]


def pareto_plots(report: Report) -> tuple[ParetoPlot, ...]:
    """Return the plots of a report's search: none where there is nothing to draw."""
    search, source = report.search, report.source.bytes
    if search is None:
        return ()
    what = "agreement" if report.metric is None else "the task metric"
    by_drop, by_latency = _by_drop(search), _by_latency(search)
    plots = []
    if by_drop:
        titles = ("Size against accuracy", f"drop of {what}")
        plots.append(_plot(*titles, by_drop, original=0.0, search=search, source=source))
    if by_latency:
        titles = ("Size against speed", "latency ratio to the original")
        plots.append(_plot(*titles, by_latency, original=1.0, search=search, source=source))
    return tuple(plots)


def best_trials(report: Report) -> tuple[Trial, ...]:
    """Return the trials on the front, and the chosen one, in the order of trying."""
    search = report.search
    if search is None:
        return ()
    numbers = {*search.front, search.chosen}
    return tuple(one for one in search.trials if one.number in numbers)


def front_of(costed: Iterable[Costed]) -> tuple[Costed, ...]:
    """Return those that no other beats both in bytes and in cost, by bytes."""
    front: list[Costed] = []
    for one in sorted(costed, key=lambda one: (one.bytes, one.cost, one.trial.number)):
        if not front or one.cost < front[-1].cost:
            front.append(one)
    return tuple(front)


def _by_drop(search: Search) -> tuple[Costed, ...]:
    return _costed(search.trials, lambda trial: trial.drop)


def _by_latency(search: Search) -> tuple[Costed, ...]:
    return _costed(search.trials, lambda trial: trial.latency_ratio)


def _costed(trials: Iterable[Trial], cost: Callable[[Trial], float | None]) -> tuple[Costed, ...]:
    return tuple(
        Costed(one, one.bytes, value)
        for one in trials
        if one.bytes is not None and (value := cost(one)) is not None
    )


def _plot(
    title: str,
    y_title: str,
    shown: Sequence[Costed],
    *,
    original: float,
    search: Search,
    source: int,
) -> ParetoPlot:
    sizes = [source, *(one.bytes for one in shown)]
    x = Scale(min(sizes) / ROOM, max(sizes) * ROOM, LEFT, RIGHT, is_logarithmic=True)
    y = Scale(*_costs(shown, original), BOTTOM, TOP)
    points = [Point(x.place(source), y.place(original), "original", f"original: {size(source)}")]
    points += [
        Point(
            x=x.place(one.bytes),
            y=y.place(one.cost),
            kind=one.trial.status,
            text=f"{one.trial.number}: {pipeline_in_words(one.trial.recipe)}: {size(one.bytes)}, "
            f"{y_title} {one.cost:.4g}",
            is_chosen=one.trial.number == search.chosen,
            is_off_scale=not y.holds(one.cost),
        )
        for one in shown
    ]
    return ParetoPlot(
        title=title,
        y_title=y_title,
        x_ticks=x.ticks(MOST_TICKS, _bytes_label),
        y_ticks=y.ticks(MOST_TICKS, lambda value: f"{value:.3g}"),
        points=tuple(sorted(points, key=lambda point: point.is_chosen)),
        front=_stairs([(x.place(one.bytes), y.place(one.cost)) for one in front_of(shown)]),
    )


def _costs(shown: Sequence[Costed], original: float) -> tuple[float, float]:
    """Return the ends of the axis of costs; one broken candidate shall not flatten the others."""
    kept = [abs(one.cost - original) for one in shown if one.trial.status == "kept"]
    reach = max(kept, default=0.0) * OFF_SCALE or inf
    held = [original, *(one.cost for one in shown if one.cost - original <= reach)]
    return padded(min(held), max(held))


def _stairs(corners: Sequence[tuple[float, float]]) -> tuple[tuple[float, float], ...]:
    """Return a line that goes right and then down: what can be had for so many bytes."""
    line: list[tuple[float, float]] = []
    for corner in corners:
        if line:
            line.append((corner[0], line[-1][1]))
        line.append(corner)
    return tuple(line)


def _bytes_label(value: float) -> str:
    """Return round bytes in few characters."""
    amount, _, unit = size(int(value)).partition(" ")
    return f"{float(amount):g} {unit}"
