"""How many operations may be left so that a model is as fast as it should be: measured."""

from __future__ import annotations

from typing import TYPE_CHECKING

from onnxcomp.benchmarking import benchmark
from onnxcomp.errors import OptionError
from onnxcomp.graph import model_bytes
from onnxcomp.statistics import held_out_samples

if TYPE_CHECKING:
    from collections.abc import Callable

    from onnxcomp.graph import Model
    from onnxcomp.runtime import Samples

TRIALS = 6
"""Shares of the operations that are tried."""

TIMED = 4
"""Samples on which models are timed."""

DIGITS = 3
"""Of the share that is found: it is written into a recipe."""


def share_for(
    goal: float,
    model: Model,
    made: Callable[[float], Model],
    samples: Samples,
    progress: Callable[[float], None],
) -> float | None:
    """Find the most operations that may be left so that a run takes no more than it should.

    Channels that go change how fast a model is, whatever the weights: nothing is repaired.

    Args:
        goal: Most of the latency of the model, 0 to 1.
        model: The model.
        made: Returns a copy that has a share of the operations, or a little less; raises an
            `OptionError` if it cannot be had.
        samples: What models are timed on.
        progress: Told the share that is done.

    Returns:
        The share of the operations; None if no share that was tried is fast enough.
    """
    source, timed = model_bytes(model), held_out_samples(samples, TIMED)
    best, low, high = None, 0.0, 1.0
    share = goal
    for trial in range(TRIALS):
        try:
            is_fast = _ratio(source, model_bytes(made(share)), timed) <= goal
        except OptionError:
            low = share
        else:
            if is_fast:
                best, low = share, share
            else:
                high = share
        share = round((low + high) / 2, DIGITS)
        progress((trial + 1) / TRIALS)
    return best


def _ratio(source: bytes, result: bytes, samples: Samples) -> float:
    """Return what part of the time of a run of the source a run of the result takes."""
    return benchmark(source, result, samples).cpu_ratio.median
