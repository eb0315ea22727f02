"""Which way is the fastest that keeps the outputs: each is made and measured."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice
from math import inf, log10
from typing import TYPE_CHECKING

from onnxcomp.benchmarking import time_ratio
from onnxcomp.graph import copy_model, model_bytes
from onnxcomp.runtime import open_session
from onnxcomp.runtime.comparison import OutputSums, largest_disagreement, worst_snr_db
from onnxcomp.statistics import held_out_samples
from onnxcomp_passes.quantize.halving import replaced
from onnxcomp_passes.quantize.mixing import Drafts

if TYPE_CHECKING:
    from collections.abc import Sequence

    from onnxcomp.graph import Model
    from onnxcomp.pipeline import Context
    from onnxcomp.runtime import Samples
    from onnxcomp.verdicts import Verdict
    from onnxcomp_passes.quantize.mixing import Mix
    from onnxcomp_passes.quantize.quantize import Quantize

COMPARED, TIMED = 16, 4
"""Samples on which results are compared and timed; no repair is made from them, but ranges are."""


SURELY = 0.98
"""Latency ratio below which the whole interval lies of a result that is faster for certain."""

MARGINS = (0.0, 3.0, 6.0)
"""What is asked beyond the least SNR, in dB, one after the other where a result has missed it."""

DRAFTS = 0.3
"""The share of the progress that drafts take."""


@dataclass(frozen=True, eq=False)
class _Trial:
    """Passes, and what they made of a copy."""

    chosen: Sequence[Quantize]
    result: Model
    verdicts: list[Verdict]


def apply_fastest(options: Quantize, model: Model, context: Context) -> list[Verdict]:
    """Quantize a model in the fastest way that keeps the outputs.

    Args:
        options: The pass, in mode ``auto``.
        model: The model; becomes the result.
        context: Samples; told which passes do the same.
    """
    least = max(options.least_snr, context.min_snr or options.least_snr)
    exact = options.model_copy(update={"least_snr": least})
    if context.samples is None:
        # Without samples nothing is measured, but whoever has statistics wants them used.
        mode = "weights" if context.statistics is None else "static"
        chosen = exact.model_copy(update={"mode": mode})
        context.decide((chosen,))
        return chosen.apply(model, context)
    mixes = Drafts.of(model, exact, context.samples).mixes(context.part(0, DRAFTS))
    ways = [_ways(mix, exact) for mix in mixes]
    stored = exact.model_copy(update={"mode": "weights"})
    return _fastest(model, ways, stored, least, context.part(DRAFTS, 1))


def _ways(mix: Mix, options: Quantize) -> list[Sequence[Quantize]]:
    """Return the passes that make a mix, stricter ones after others.

    What single roundings cost need not add up: where it is more, fewer are done.
    """
    margins = MARGINS if mix.mode == "static" else MARGINS[:1]
    return [
        mix.passes(options.model_copy(update={"least_snr": options.least_snr + more}))
        for more in margins
    ]


def _fastest(
    model: Model,
    ways: Sequence[Sequence[Sequence[Quantize]]],
    last: Quantize,
    least_snr: float,
    context: Context,
) -> list[Verdict]:
    """Apply passes to copies, and keep the fastest result that is exact enough.

    Args:
        model: The model; becomes the result.
        ways: Each a list of passes of which the first that are exact enough are timed.
        last: What is applied where nothing is exact enough and faster than the model.
        least_snr: Of the outputs on samples apart, in dB.
        context: Samples; told which passes were kept.
    """
    best, least = None, 1.0
    source = model_bytes(model)
    for place, way in enumerate(ways):
        part = context.part(place / (len(ways) + 1), (place + 1) / (len(ways) + 1))
        found = _exact_enough(model, source, way, least_snr, part)
        if found is not None and context.samples is not None:
            ratio = _latency_ratio(source, model_bytes(found.result), context.samples)
            if ratio < least:
                best, least = found, ratio
    if best is None:
        best = _applied((last,), model, context.part(len(ways) / (len(ways) + 1), 1))
    model.__dict__.update(best.result.__dict__)
    context.progress(1.0)
    context.decide(best.chosen)
    return best.verdicts


def _exact_enough(
    model: Model,
    source: bytes,
    way: Sequence[Sequence[Quantize]],
    least_snr: float,
    context: Context,
) -> _Trial | None:
    """Return what the first passes make that keep the outputs."""
    assert context.samples is not None  # noqa: S101 - there are no ways without
    for place, passes in enumerate(way):
        part = context.part(place / len(way), (place + 1) / len(way))
        trial = _applied(passes, model, part)
        if _worst_snr(source, model_bytes(trial.result), context.samples) >= least_snr:
            return trial
    return None


def _applied(passes: Sequence[Quantize], model: Model, context: Context) -> _Trial:
    copied = copy_model(model)
    verdicts: list[Verdict] = []
    for place, one in enumerate(passes):
        part = context.part(place / len(passes), (place + 1) / len(passes))
        found = one.apply(copied, part)
        verdicts = replaced(verdicts, found) if verdicts else found
    return _Trial(passes, copied, verdicts)


def _worst_snr(source: bytes, result: bytes, samples: Samples) -> float:
    """Return the SNR of the worst output on samples that no weight was repaired on, in dB.

    Minus infinite where nothing of an output could be compared.
    """
    unseen = held_out_samples(samples, COMPARED)
    first, second = open_session(source), open_session(result)
    sums = [OutputSums.of(port) for port in first.outputs]
    for feed in unseen:
        wanted, found = first.run(feed), second.run(feed)
        for one in sums:
            one.add(wanted[one.name], found[one.name])
    outputs = [one.comparison() for one in sums]
    if not all(each.compared for each in outputs):
        return -inf
    worst = worst_snr_db(outputs)
    if worst is not None:
        return worst
    # Of labels, what is unequal is all the error there is.
    unequal = largest_disagreement(outputs)
    return -10 * log10(unequal) if unequal else inf


def _latency_ratio(source: bytes, result: bytes, samples: Samples) -> float:
    """Return how long a result takes of what the source takes; infinite if not surely less.

    It is the time of the processor, run by run beside each other: what else the machine does
    decides nothing, and no control that it disturbed stands against a result.
    """
    feeds = list(islice(held_out_samples(samples, COMPARED).batched(1), TIMED))
    ratio = time_ratio(source, result, feeds)
    return ratio.median if ratio.high < SURELY else inf
