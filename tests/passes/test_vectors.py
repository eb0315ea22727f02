import numpy as np
import pytest

from onnxcomp_passes.cluster import vectors
from onnxcomp_passes.cluster.histogram import Histogram
from onnxcomp_passes.cluster.kmeans import cluster_points
from onnxcomp_passes.cluster.vectors import assign_vectors, cluster_vectors


def random_vectors(size, width, seed=0):
    return np.random.default_rng(seed).standard_t(5, (size, width)).astype(np.float32)


def squared_error(sample, codebook):
    return float(np.sum((sample - codebook[assign_vectors(sample, codebook)]) ** 2))


@pytest.mark.parametrize(("width", "levels"), [(2, 16), (4, 4)])
def test_better_than_a_product_of_scalar_codebooks(width, levels):
    sample = random_vectors(20_000, width)
    histogram = Histogram()
    histogram.add(sample)
    scalars = cluster_points(*histogram.points(), levels).astype(np.float32)
    product = np.stack(np.meshgrid(*[scalars] * width), axis=-1).reshape(-1, width)
    found = cluster_vectors(sample, 256)
    assert found.shape == (256, width)
    assert found.dtype == np.float32
    assert squared_error(sample, found) < 0.95 * squared_error(sample, product)


@pytest.mark.parametrize("width", [2, 4])
@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64])
def test_codes_are_the_nearest_entries(width, kind):
    sample = random_vectors(3000, width).astype(kind)
    codebook = cluster_vectors(sample, 100)
    codes = assign_vectors(sample, codebook)
    distances = np.sum((sample[:, None].astype(np.float64) - codebook) ** 2, axis=-1)
    chosen = np.take_along_axis(distances, codes[:, None].astype(np.intp), axis=1)[:, 0]
    assert codes.dtype == np.uint8
    np.testing.assert_allclose(chosen, distances.min(axis=1), atol=1e-5)


@pytest.mark.parametrize("keep_zero", [False, True])
def test_no_more_distinct_vectors_than_entries_stay_as_they_are(keep_zero):
    distinct = random_vectors(30, 2)
    distinct[0] = 0.0
    sample = np.random.default_rng(0).choice(distinct, 40_000)
    codebook = cluster_vectors(sample, 30, keep_zero=keep_zero)
    assert len(codebook) == 30
    np.testing.assert_array_equal(codebook[assign_vectors(sample, codebook)], sample)


def test_distinct_vectors_that_only_the_whole_sample_shows():
    sample = np.zeros((vectors._STAGES[0][0] + 2, 2), np.float32)
    sample[-1] = 3.0
    assert cluster_vectors(sample, 4).tolist() == [[0.0, 0.0], [3.0, 3.0]]


def test_zero_vectors_stay_zero():
    sample = random_vectors(4000, 4)
    sample[::2] = 0.0
    codebook = cluster_vectors(sample, 16, keep_zero=True)
    assert np.count_nonzero(~codebook.any(axis=1)) == 1
    assert not codebook[assign_vectors(sample, codebook)][::2].any()
    assert cluster_vectors(sample[::2], 16, keep_zero=True).tolist() == [[0.0] * 4]


def test_weights_are_repetitions():
    sample = np.array([[0.0, 0.0], [1.0, 0.0], [9.0, 9.0]], np.float32)
    assert cluster_vectors(sample, 1, weights=[3, 1, 0]).tolist() == [[0.25, 0.0]]
    assert cluster_vectors(sample, 3, weights=[0, 0, 0]).tolist() == sample.tolist()


def test_a_seed_decides_every_byte():
    sample = random_vectors(vectors.TRAINING_VECTORS + 1000, 2)
    first = cluster_vectors(sample, 8, seed=1)
    assert first.tobytes() == cluster_vectors(sample, 8, seed=1).tobytes()
    assert first.tobytes() != cluster_vectors(sample, 8, seed=2).tobytes()


def test_an_entry_without_vectors_moves_to_the_worst_vector():
    sample = np.array([[0.0, 0.0], [1.0, 0.0], [9.0, 9.0]], np.float32)
    codebook = np.array([[0.0, 0.0], [50.0, 50.0]], np.float32)
    codes = assign_vectors(sample, codebook)
    moved = vectors._means(sample, np.ones(3), codes, codebook, fixed=0)
    assert moved[1].tolist() == [9.0, 9.0]


@pytest.mark.parametrize("entries", [0, 257])
def test_entries_out_of_range(entries):
    with pytest.raises(ValueError, match=f"{entries} entries"):
        cluster_vectors(np.ones((3, 2), np.float32), entries)
    with pytest.raises(ValueError, match="1 to 256"):
        assign_vectors(np.ones((3, 2), np.float32), np.ones((entries, 2)))


@pytest.mark.parametrize("sample", [np.zeros((0, 2)), np.array([[np.nan, 1.0]])])
def test_vectors_must_be_finite_and_some(sample):
    with pytest.raises(ValueError, match="finite"):
        cluster_vectors(sample, 4)
