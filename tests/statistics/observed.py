"""Models of one layer, and what is observed in them."""

import numpy as np

from onnxcomp import load_model
from onnxcomp.graph import model_bytes
from onnxcomp.runtime import open_session, read_samples
from onnxcomp.statistics import layers, observe, walk, watch_inputs
from onnxcomp.testing.small_model import parsed

RANDOM = np.random.default_rng(5)


def reseed():
    """Start the random numbers anew, so that they do not depend on which tests ran before."""
    RANDOM.bit_generator.state = np.random.default_rng(5).bit_generator.state


def floats(*shape):
    return RANDOM.standard_normal(shape).astype(np.float32)


def built(body, signature, weights, *, opset=17):
    """Return a model of nodes in ONNX's own syntax."""
    text = f'<ir_version: 8, opset_import: ["" : {opset}]> built {signature} {{ {body} }}'
    return load_model(parsed(text, weights))


def session_of(model):
    return open_session(model_bytes(model), threads=1)


def samples_of(model, feeds):
    return read_samples(list(feeds), session_of(model).inputs)


def observed(model, feeds):
    return observe(model, samples_of(model, feeds))


def beside(model, original, feeds):
    """Return the statistics of layers of a model beside its original, by their names."""
    found = layers(model)
    watches, inputs = watch_inputs(found, layers(original), settled=found)
    walk((model, original), watches, samples_of(model, feeds))
    return dict(zip((each.name for each in layers(model)), inputs, strict=True))


def layer_of(model, name):
    (layer,) = (each for each in layers(model) if each.name == name)
    return layer


def whole(statistics):
    """Return count, mean and second moment of all columns, held-out ones included, in float64."""
    groups, width = sizes_of(statistics)
    count, first, second = 0, np.zeros((groups, width)), np.zeros((groups, width, width))
    if statistics.moments is not None:
        count = statistics.moments.count
        first = statistics.moments.mean * count
        second = statistics.moments.second * count
    if statistics.held_out is not None:
        columns = statistics.held_out.columns.astype(np.float64)
        count += columns.shape[1]
        first += columns.sum(axis=1)
        second += columns.transpose(0, 2, 1) @ columns
    return count, first / count, second / count


def sizes_of(statistics):
    if statistics.moments is not None:
        return statistics.moments.mean.shape
    return statistics.held_out.columns.shape[::2]


def distance(found, expected):
    """Return the relative distance of two arrays of the same shape (Frobenius)."""
    assert np.shape(found) == np.shape(expected)
    return np.linalg.norm(np.asarray(found) - expected) / np.linalg.norm(expected)


def assert_columns(statistics, columns, tolerance=1e-5):
    """Compare statistics with columns, shape (groups, columns, width), that were cut by hand."""
    columns = np.asarray(columns, np.float64)
    count, mean, second = whole(statistics)
    assert count == columns.shape[1]
    assert distance(mean, columns.mean(axis=1)) < tolerance
    products = columns.transpose(0, 2, 1) @ columns
    assert distance(second, products / columns.shape[1]) < tolerance
