"""Random least-squares problems, and what they cost by the definition."""

import numpy as np

from onnxcomp.recovery import Problem
from onnxcomp.statistics import Moments


def mixed(random, count, width, groups=1):
    """Return correlated columns with a mean, shape (groups, columns, width)."""
    sources = random.standard_normal((groups, count, width))
    mixing = random.standard_normal((groups, width, width)) / np.sqrt(width)
    mixing += np.linspace(0.1, 1.5, width)[:, None] * random.standard_normal((groups, 1, width))
    return (sources @ mixing + random.standard_normal((groups, 1, width))).astype(np.float32)


def moments_of(columns, original=None):
    moments = Moments(len(columns), columns.shape[2], 0 if original is None else original.shape[2])
    moments.add(columns, original)
    return moments


def problem_of(seed, *, count=400, width=6, outputs=4, groups=1, paired=True, shifts=True):
    """Return a problem, its weights, and the columns of the repaired layer and the original."""
    random = np.random.default_rng(seed)
    original = mixed(random, count, width, groups)
    noise = random.standard_normal(original.shape).astype(np.float32)
    columns = original + np.float32(0.3) * noise + np.float32(0.2) if paired else original
    weights = random.standard_normal((groups, outputs, width))
    moments = moments_of(columns, original if paired else None)
    return Problem.of(weights, moments, shifts=shifts), weights, columns, original


def second_moment(random, width, count=None):
    columns = mixed(random, count or 4 * width, width)[0].astype(np.float64)
    return columns.T @ columns / len(columns)


def cost(missed, second):
    """Return what an error of weights costs at the outputs."""
    return float(np.einsum("oi,ij,oj->", missed, second, missed))
