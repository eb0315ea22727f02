"""How far medians and means can be relied on: bootstrap intervals, the same each time."""

from collections.abc import Sequence
from itertools import chain
from math import sqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

RESAMPLES, AT_ONCE = 2000, 50
ENDS = (0.025, 0.975)

ERRORS = 1.96
"""Standard errors from a mean to the ends of its 95 % interval."""

MANY = 10_000

STUDENT = {1: 12.71, 2: 4.303, 3: 3.182, 4: 2.776}
"""The same where the error is estimated from so few degrees of freedom (Student, 1908)."""

SEED = 0


class Interval(BaseModel):
    """A median of ratios and its 95 % bootstrap interval; without unit, below 1 is less.

    Attributes:
        median: The median over the rounds.
        low: Lower end of the interval.
        high: Upper end of the interval.
    """

    model_config = ConfigDict(frozen=True, defer_build=True)

    median: float
    low: float
    high: float


def interval_of(blocks: Sequence[Sequence[float]]) -> Interval:
    """Return the median and its interval, by resampling blocks and then what is in them.

    Rounds of one block are alike in where the weights lie, so they tell less than as many rounds
    of as many blocks (A. C. Davison and D. V. Hinkley, "Bootstrap Methods and their Application",
    1997, section 3.8). Fewer than six ratios cannot be resampled, as their extremes do not hold
    the median often enough: their logarithms are taken to be normal.

    Args:
        blocks: The ratios, those of one block together; none is empty, and there are two at least.
    """
    ratios = list(chain.from_iterable(blocks))
    if len(ratios) - 1 in STUDENT:
        return _interval_of_few(ratios)
    random = np.random.default_rng(SEED)
    counts = np.array([len(each) for each in blocks])
    table = np.zeros((len(blocks), counts.max()))
    for row, each in zip(table, blocks, strict=True):
        row[: len(each)] = each
    chosen = random.integers(len(blocks), size=(RESAMPLES, len(blocks), 1))
    shares = random.random((RESAMPLES, len(blocks), counts.max()))
    places = (shares * counts[chosen]).astype(int)
    medians = np.median(table[chosen, places].reshape(RESAMPLES, -1), axis=1)
    low, high = np.quantile(medians, ENDS)
    return Interval(median=float(np.median(ratios)), low=float(low), high=float(high))


def _interval_of_few(ratios: Sequence[float]) -> Interval:
    logarithms = np.log(ratios)
    half = STUDENT[len(ratios) - 1] * logarithms.std(ddof=1) / sqrt(len(ratios))
    low, high = (float(np.exp(logarithms.mean() + sign * half)) for sign in (-1, 1))
    median = float(np.median(ratios))
    return Interval(median=median, low=min(low, median), high=max(high, median))


def unseen_share(items: int) -> float:
    """Return the most, at 95 %, of what may change although none of so many items did.

    The rule of three (J. A. Hanley and A. Lippman-Hand, "If Nothing Goes Wrong, Is Everything All
    Right?", 1983), exact.
    """
    return float(1 - 0.05 ** (1 / items))


def mean_interval(items: NDArray[Any]) -> tuple[float, float]:
    """Return the 95 % interval of a mean, by the percentiles of resamples.

    The mean of many is as good as normal, which is much faster.

    Args:
        items: What it is the mean of, shape (items,); at least one.
    """
    if len(items) > MANY:
        mean, half = items.mean(), ERRORS * items.std(ddof=1) / sqrt(len(items))
        return float(mean - half), float(mean + half)
    random = np.random.default_rng(SEED)
    shape = (AT_ONCE, len(items))
    draws = (random.integers(len(items), size=shape) for _ in range(RESAMPLES // AT_ONCE))
    means = np.concatenate([items[each].mean(axis=1) for each in draws])
    low, high = np.quantile(means, ENDS)
    return float(low), float(high)
