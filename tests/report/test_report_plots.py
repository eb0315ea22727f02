"""Where points and ticks are."""

from math import isclose

import pytest
from made_up import benchmark, search, trial

from onnxcomp.report import pareto, rounds
from onnxcomp.report.pareto import Costed, best_trials, front_of, pareto_plots
from onnxcomp.report.rounds import rounds_plot
from onnxcomp.report.scales import Scale, padded


@pytest.mark.parametrize(
    ("low", "high", "labels"),
    [
        (0.0, 1.0, ["0", "0.2", "0.4", "0.6", "0.8", "1"]),
        (-0.3, 0.35, ["-0.2", "0", "0.2"]),
        (0.97, 1.03, ["0.98", "1", "1.02"]),
        (0, 3000, ["0", "1000", "2000", "3000"]),
    ],
)
def test_ticks(low, high, labels):
    found = Scale(low, high, 0, 100).ticks(6, lambda value: f"{value:g}")
    assert [label for _, label in found] == labels
    places = [place for place, _ in found]
    assert places == sorted(places)
    assert all(0 <= place <= 100 for place in places)


@pytest.mark.parametrize(
    ("low", "high", "values"),
    [(90, 1100, [100, 200, 500, 1000]), (1, 1e6, [1, 10, 100, 1e3, 1e4, 1e5, 1e6])],
)
def test_logarithmic_ticks(low, high, values):
    found = []
    Scale(low, high, 0, 100, is_logarithmic=True).ticks(7, lambda value: found.append(value) or "")
    assert found == values


def test_places():
    scale = Scale(1, 100, 200, 0, is_logarithmic=True)
    assert [scale.place(value) for value in (0.1, 1, 10, 100, 1e9)] == [200, 200, 100, 0, 0]
    assert not scale.holds(0.1)


@pytest.mark.parametrize(("low", "high"), [(0, 0), (5, 5), (1, 2), (-3, -3)])
def test_ends_are_never_equal(low, high):
    first, last = padded(low, high)
    assert first < low <= high < last


def costed(*pairs):
    return [Costed(trial(place, *pair), *pair) for place, pair in enumerate(pairs)]


def test_the_front():
    found = front_of(costed((10, 5.0), (20, 5.0), (20, 3.0), (30, 4.0), (40, 1.0)))
    assert [(one.bytes, one.cost) for one in found] == [(10, 5.0), (20, 3.0), (40, 1.0)]
    assert front_of([]) == ()


def test_the_plots_of_a_search(full):
    by_drop, by_latency = pareto_plots(full)
    assert by_drop.y_title == "drop of the task metric"
    assert [point.kind for point in by_drop.points] == ["original", "kept", "missed", "kept"]
    assert by_drop.points[-1].is_chosen
    assert [point.is_off_scale for point in by_drop.points] == [False, False, True, False]
    assert len(by_latency.points) == 3
    for plot in (by_drop, by_latency):
        for point in plot.points:
            assert pareto.LEFT <= point.x <= pareto.RIGHT
            assert pareto.TOP <= point.y <= pareto.BOTTOM
        # Right, then down: fewer bytes never cost less.
        assert list(plot.front) == sorted(plot.front)
        assert plot.x_ticks
        assert plot.y_ticks
    assert [one.number for one in best_trials(full)] == [0, 1, 2]


def test_a_search_without_results(full):
    failed = full.model_copy(update={"search": search(trial(0, None, None, status="failed"))})
    assert pareto_plots(failed) == best_trials(failed) == ()


def test_a_single_candidate_like_the_original(full):
    same = trial(0, full.source.bytes, 0.0, latency=1.0)
    for plot in pareto_plots(full.model_copy(update={"search": search(same, chosen=0)})):
        assert plot.points[0].x == plot.points[1].x
        assert plot.points[0].y == plot.points[1].y


def test_rounds():
    plot = rounds_plot(benchmark(0.8, 1.0))
    result, control = plot.rows
    assert result.low < result.median < result.high < control.low < plot.one < control.high
    assert isclose(control.median, plot.one)
    assert len(result.dots) == len(control.dots) == 30
    for row in plot.rows:
        assert all(rounds.LEFT <= x <= rounds.RIGHT for x, _, _ in row.dots)
    assert result.text == "0.800 [0.790, 0.810]"


def test_an_outlier_is_at_the_edge():
    made = benchmark(0.8, 1.0)
    far = made.model_copy(update={"latency_ratios": (*made.latency_ratios, 50.0)})
    assert rounds_plot(far).rows[0].dots[-1][0::2] == (rounds.RIGHT, True)
