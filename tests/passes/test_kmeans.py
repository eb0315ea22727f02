from itertools import combinations

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnxcomp_passes.cluster import kmeans
from onnxcomp_passes.cluster.histogram import (
    DISTINCT_LIMIT,
    Histogram,
    Moments,
    bin_codes,
    bin_keys,
)
from onnxcomp_passes.cluster.kmeans import assign, cluster_points

SIZES = st.lists(st.integers(-40, 40).map(lambda each: each / 4), min_size=1, max_size=9)


def random_values(kind, size, seed=0):
    generator = np.random.default_rng(seed)
    drawn = {
        "gauss": lambda: generator.standard_normal(size),
        "uniform": lambda: generator.random(size) - 0.5,
        "mixture": lambda: generator.standard_normal(size) * generator.choice([0.02, 0.3], size),
        "t5": lambda: generator.standard_t(5, size),
        "t2": lambda: generator.standard_t(2, size),
        "cauchy": lambda: generator.standard_cauchy(size),
    }[kind]()
    return drawn.astype(np.float32)


def histogram_of(values, weights=1.0):
    histogram = Histogram()
    histogram.add(values, weights)
    return histogram


def squared_error(values, codebook, weights=1.0):
    distances = np.abs(np.subtract.outer(np.asarray(values, np.float64), codebook))
    return float(np.sum(weights * np.min(distances, axis=-1) ** 2))


def error_of(points, weights, codebook):
    nearest = codebook[np.searchsorted((codebook[1:] + codebook[:-1]) / 2, points)]
    return float(np.sum(weights * (points - nearest) ** 2))


def best_error(points, weights, clusters, *, keep_zero):
    def cell_errors(cell):
        mean = np.average(points[cell], weights=weights[cell]) if len(cell) else 0.0
        own = np.sum(weights[cell] * (points[cell] - mean) ** 2)
        return own, np.sum(weights[cell] * points[cell] ** 2) - own

    best = np.inf
    indices = np.arange(points.size)
    for borders in combinations(range(points.size + 1), clusters - 1):
        errors = [cell_errors(cell) for cell in np.split(indices, borders)]
        total = sum(own for own, _ in errors)
        best = min(best, total + (min(gain for _, gain in errors) if keep_zero else 0.0))
    return best


@settings(max_examples=60, deadline=None)
@given(values=SIZES, seed=st.integers(0, 99), clusters=st.integers(1, 4), keep_zero=st.booleans())
def test_few_points_get_the_optimum_of_all_partitions(values, seed, clusters, keep_zero):
    points = np.unique(values)
    weights = np.random.default_rng(seed).integers(1, 9, points.size).astype(np.float64)
    codebook = cluster_points(points, weights, clusters, keep_zero=keep_zero)
    if points.size < clusters:
        best = 0.0
    else:
        best = best_error(points, weights, clusters, keep_zero=keep_zero)
    assert codebook.size <= clusters
    assert np.all(np.diff(codebook) > 0)
    assert 0.0 in codebook or not keep_zero
    assert squared_error(points, codebook, weights) <= best + 1e-9


@pytest.mark.parametrize("kind", ["gauss", "uniform", "t2", "cauchy"])
@pytest.mark.parametrize(("clusters", "keep_zero"), [(16, False), (16, True), (256, True)])
def test_many_points_are_within_a_thousandth_of_the_optimum(
    monkeypatch, kind, clusters, keep_zero
):
    points, weights = histogram_of(random_values(kind, 12_000)).points()
    found = cluster_points(points, weights, clusters, keep_zero=keep_zero)
    assert points.size > 2 * kmeans.EXACT_POINTS
    monkeypatch.setattr(kmeans, "EXACT_POINTS", 1 << 30)
    optimum = cluster_points(points, weights, clusters, keep_zero=keep_zero)
    assert error_of(points, weights, found) <= 1.001 * error_of(points, weights, optimum)


@pytest.mark.parametrize("kind", ["mixture", "cauchy"])
def test_binned_values_cost_less_than_a_thousandth(kind):
    values = random_values(kind, 80_000)
    binned = histogram_of(values)
    codebook = cluster_points(*binned.points(), 64)
    points, counts = np.unique(values.astype(np.float64), return_counts=True)
    exact = cluster_points(points, counts.astype(np.float64), 64)
    assert binned.binned
    assert error_of(points, counts, codebook) <= 1.001 * error_of(points, counts, exact)


@pytest.mark.parametrize("clusters", [4, 64])
def test_no_worse_than_lloyd_from_quantiles(clusters):
    values = random_values("t5", 20_000)
    points, weights = histogram_of(values).points()
    lloyd = np.quantile(points, (np.arange(clusters) + 0.5) / clusters)
    for _ in range(50):
        codes = np.searchsorted((lloyd[1:] + lloyd[:-1]) / 2, points)
        lloyd = np.bincount(codes, weights * points) / np.bincount(codes, weights)
    found = cluster_points(points, weights, clusters)
    assert error_of(points, weights, found) <= error_of(points, weights, lloyd)


def test_a_weight_is_as_good_as_a_repetition():
    points = np.sort(random_values("gauss", 50).astype(np.float64))
    counts = np.random.default_rng(1).integers(1, 5, 50)
    repeated = histogram_of(np.repeat(points, counts))
    np.testing.assert_array_equal(histogram_of(points, counts).points(), repeated.points())


@pytest.mark.parametrize("kind", [np.float16, ml_dtypes.bfloat16, np.float32, np.float64])
def test_no_more_distinct_values_than_clusters_stay_as_they_are(kind):
    values = np.array([0.1, -3.0, 0.0, 1e-3, 0.1, 7.5, -0.0]).astype(kind)
    codebook = cluster_points(*histogram_of(values).points(), 5)
    assert codebook.size == 5
    np.testing.assert_array_equal(codebook.astype(kind)[assign(values, codebook)], values)


def test_an_entry_stays_zero_only_if_asked():
    values = random_values("gauss", 5000) + np.float32(1)
    values[::3] = 0.0
    points, weights = histogram_of(values).points()
    codebook = cluster_points(points, weights, 4, keep_zero=True)
    decoded = codebook[assign(values, codebook)]
    assert np.all(decoded[::3] == 0.0)
    assert 0.0 not in cluster_points(points, weights, 4)


def test_zeros_alone_and_values_on_one_side_of_zero():
    assert cluster_points(np.zeros(1), np.ones(1), 4, keep_zero=True).tolist() == [0.0]
    assert cluster_points(np.array([2.0, 3.0]), np.ones(2), 1, keep_zero=True).tolist() == [0.0]
    found = cluster_points(np.array([2.0, 3.0, 9.0]), np.ones(3), 3, keep_zero=True)
    assert found.tolist() == [0.0, 2.5, 9.0]


def test_weights_decide_and_points_without_weight_do_not_count():
    points = np.array([-1.0, 0.0, 1.0, 50.0])
    assert cluster_points(points, np.array([1.0, 0.0, 3.0, 0.0]), 1).tolist() == [0.5]
    assert cluster_points(points, np.zeros(4), 4).tolist() == points.tolist()


def test_a_cluster_far_from_zero_keeps_its_digits():
    points = 1.0 + np.arange(4000) * 2.0**-23
    codebook = cluster_points(points, np.ones(4000), 8)
    expected = points.reshape(8, 500).mean(axis=1)
    np.testing.assert_allclose(codebook - 1.0, expected - 1.0, rtol=1e-9)


def test_an_outlier_does_not_cost_the_digits_of_the_others():
    inner = np.linspace(-1.0, 1.0, 400)
    points = np.concatenate([[-1e9], inner, [1e9]])
    codebook = cluster_points(points, np.ones(402), 10)
    expected = inner.reshape(8, 50).mean(axis=1)
    np.testing.assert_allclose(codebook, [-1e9, *expected, 1e9], rtol=1e-9)


@pytest.mark.parametrize(
    ("points", "clusters", "message"),
    [([], 4, "no values"), ([1.0], 0, "0 clusters"), ([1.0], 257, "257 clusters")],
)
def test_what_cannot_be_clustered(points, clusters, message):
    with pytest.raises(ValueError, match=message):
        cluster_points(np.array(points), np.ones(len(points)), clusters)


@pytest.mark.parametrize("kind", [np.float16, ml_dtypes.bfloat16, np.float32, np.float64])
@pytest.mark.parametrize("clusters", [1, 2, 16, 256])
def test_codes_are_the_nearest_entries(kind, clusters):
    values = random_values("t2", 30_000).astype(kind).reshape(150, 200)
    codebook = cluster_points(*histogram_of(values).points(), clusters).astype(np.float32)
    codes = assign(values, codebook)
    exact = np.abs(np.subtract.outer(values.astype(np.float64), codebook.astype(np.float64)))
    assert codes.dtype == np.uint8
    np.testing.assert_array_equal(codes, np.argmin(exact, axis=-1))
    np.testing.assert_array_equal(assign(values[:40, ::3], codebook), codes[:40, ::3])


def test_ties_go_to_the_lower_entry_and_boundaries_within_a_bin_are_exact():
    codebook = np.array([-1.0, 1.0, 1.0 + 2.0**-20, 1.0 + 2.0**-19, 3.0])
    near = np.float32(1.0) + np.arange(-40, 40, dtype=np.float32) * np.float32(2.0**-23)
    exact = np.abs(np.subtract.outer(near.astype(np.float64), codebook))
    others = np.float32([-0.0, 0.0, 1e-45, -1e-45, 2.0, 9e37, -9e37])
    values = np.concatenate([near, others])
    expected = np.concatenate([np.argmin(exact, axis=-1), [0, 0, 1, 0, 3, 4, 0]])
    np.testing.assert_array_equal(assign(values, codebook), expected)
    np.testing.assert_array_equal(assign(np.tile(values, 300), codebook), np.tile(expected, 300))


@pytest.mark.parametrize("codebook", [[], [2.0, 1.0], [0.0] * 257])
def test_what_is_no_codebook(codebook):
    with pytest.raises(ValueError, match="1 to 256 ascending"):
        assign(np.zeros(3, np.float32), np.array(codebook))


@settings(max_examples=20, deadline=None)
@given(sizes=st.lists(st.integers(0, 60_000), min_size=2, max_size=3), seed=st.integers(0, 9))
def test_merged_histograms_are_that_of_all_values(sizes, seed):
    parts = [random_values("gauss", size, seed + place) for place, size in enumerate(sizes)]
    merged = Histogram()
    for part in parts:
        merged.merge(histogram_of(part))
    whole = histogram_of(np.concatenate(parts))
    assert merged.binned == whole.binned
    np.testing.assert_allclose(merged.points(), whole.points(), rtol=1e-12)


def test_bins_keep_weights_means_and_zero():
    values = random_values("mixture", 200_000)
    values[:500] = 0.0
    values[500:600] = -0.0
    histogram = histogram_of(values)
    points, weights = histogram.points()
    assert histogram.binned
    assert weights.sum() == values.size
    assert weights[points == 0.0].tolist() == [600.0]
    np.testing.assert_allclose(points @ weights, values.sum(dtype=np.float64), rtol=1e-9)
    keys = bin_keys(values[600:])
    assert np.unique(keys).size + 1 == points.size
    assert np.all(np.diff(points) > 0)


def test_row_weights_and_strides():
    values = random_values("gauss", 90_000).reshape(300, 300)[:, ::2]
    scale = np.linspace(0.5, 2.0, 300)[:, None]
    together = histogram_of(values, scale**2)
    one_by_one = Histogram()
    for row, each in zip(values, scale, strict=True):
        one_by_one.add(row, each[0] ** 2)
    np.testing.assert_allclose(together.points(), one_by_one.points(), rtol=1e-12)


def test_the_limit_of_distinct_values():
    values = np.arange(DISTINCT_LIMIT + 1, dtype=np.float32)
    exact = histogram_of(values[1:])
    assert not exact.binned
    np.testing.assert_array_equal(exact.points()[0], values[1:])
    exact.add(values[:1])
    assert exact.binned
    assert exact.points()[1].sum() == values.size


def test_a_memory_mapped_tensor(tmp_path):
    values = random_values("t5", 100_000)
    values.tofile(tmp_path / "weights")
    mapped = np.memmap(tmp_path / "weights", np.float32, "r", shape=(100, 1000))
    np.testing.assert_array_equal(histogram_of(mapped).points(), histogram_of(values).points())


@pytest.mark.parametrize("kind", [np.float16, ml_dtypes.bfloat16, np.float32, np.float64])
@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("size", [10, 200_000])
def test_values_that_are_not_finite(kind, wrong, size):
    values = random_values("gauss", size).astype(kind)
    values[-1] = wrong
    with pytest.raises(ValueError, match="not all finite"):
        histogram_of(values)


def test_values_beyond_float32_and_other_types():
    with pytest.raises(ValueError, match="not all finite"):
        histogram_of(np.array([1e39]))
    with pytest.raises(TypeError, match="int8"):
        histogram_of(np.zeros(3, np.int8))
    with pytest.raises(ValueError, match="broadcast"):
        histogram_of(np.zeros(3, np.float32), np.ones((2, 3)))


def test_empty_tensors():
    values = np.zeros((0, 3), np.float32)
    assert histogram_of(values).points()[0].size == 0
    assert assign(values, np.zeros(1)).shape == (0, 3)


def test_bins_are_in_the_order_of_their_values():
    limits = np.float32([-2.0, -1e-3, 0.0, 0.5])
    values = np.float32([-np.inf, -3.0, -1.0, -1e-30, 1e-30, 0.4, 0.6, np.inf])
    codes = bin_codes(limits, unsure=99)
    assert codes[bin_keys(values)].tolist() == [0, 0, 1, 2, 3, 3, 4, 4]
    assert codes[bin_keys(limits)].tolist() == [99] * 4


def test_moments_of_mirrored_points():
    points, weights = np.array([-3.0, 1.0, 2.0]), np.array([1.0, 2.0, 3.0])
    mirrored = Moments.of(points, weights).mirrored()
    expected = Moments.of(-points[::-1], weights[::-1])
    for one, other in zip(mirrored, expected, strict=True):
        np.testing.assert_allclose(np.diff(one), np.diff(other))
