"""Which of several ways is the fastest that keeps the outputs: each is made and measured."""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING

from onnxcomp.benchmarking import benchmark
from onnxcomp.graph import copy_model, model_bytes
from onnxcomp.runtime import open_session
from onnxcomp.runtime.comparison import OutputSums, worst_snr_db
from onnxcomp.statistics import held_out_samples

if TYPE_CHECKING:
    from collections.abc import Sequence

    from onnxcomp.graph import Model
    from onnxcomp.pipeline import Context, Pass
    from onnxcomp.runtime import Samples
    from onnxcomp.verdicts import Verdict

COMPARED = 16
"""Samples on which results are compared, none of which a repair is made from."""


def fastest(
    model: Model, trials: Sequence[Pass], least_snr: float, context: Context
) -> list[Verdict]:
    """Apply each of several passes to a copy, and keep the fastest that is exact enough.

    The last is kept where none of the others is, or none is faster than the model that came.

    Args:
        model: The model; becomes the result.
        trials: The passes.
        least_snr: Of the outputs on samples apart, in dB.
        context: Samples; told which pass was kept.
    """
    best: tuple[float, Pass, Model, list[Verdict]] | None = None
    source = model_bytes(model)
    for place, trial in enumerate(trials):
        copied = copy_model(model)
        verdicts = trial.apply(
            copied, context.part(place / len(trials), (place + 1) / len(trials))
        )
        is_last = place == len(trials) - 1
        ratio = inf
        if not is_last and context.samples is not None:
            ratio = _latency_ratio(source, model_bytes(copied), context.samples, least_snr)
        if (is_last and best is None) or ratio < (best[0] if best else 1.0):
            best = ratio, trial, copied, verdicts
    assert best is not None  # noqa: S101 - the last is kept if no other is
    _, chosen, result, verdicts = best
    model.__dict__.update(result.__dict__)
    context.decide((chosen,))
    return verdicts


def _latency_ratio(source: bytes, result: bytes, samples: Samples, least_snr: float) -> float:
    """Return how long a result takes of what the source takes; infinite if it is not worth it."""
    unseen = held_out_samples(samples, COMPARED)
    first, second = open_session(source), open_session(result)
    sums = [OutputSums.of(port) for port in first.outputs]
    for feed in unseen:
        wanted, found = first.run(feed), second.run(feed)
        for one in sums:
            one.add(wanted[one.name], found[one.name])
    worst = worst_snr_db([one.comparison() for one in sums])
    if worst is not None and worst < least_snr:
        return inf
    timed = benchmark(source, result, unseen)
    # Not faster than the same model can seem to be is not faster.
    return timed.cpu_ratio.median if timed.cpu_ratio.high < timed.cpu_control.low else inf
