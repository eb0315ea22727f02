"""How much weights matter for what the model gives out, measured."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np

from onnxcomp.graph import override, referring_bytes
from onnxcomp.runtime import open_session

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from numpy.typing import ArrayLike, NDArray

    from onnxcomp.graph import Constant, Model
    from onnxcomp.runtime import Feed, Samples, Session

    Floats = NDArray[np.float64]
    Outputs = list[Floats]
    Change = Sequence[tuple[Constant, NDArray[Any]]]

SAMPLES = 16
"""Samples, or complete feeds, that every change is run on at most."""

TINY = 1e-30
"""Instead of nothing, for logarithms."""

ENOUGH = ((6, 256), (2, 1024))
"""Samples that do where their outputs have so many rows together: two whole pictures do."""


def output_errors(
    model: Model,
    changes: Sequence[Change],
    samples: Samples,
    progress: Callable[[float], None] = lambda _: None,
    *,
    most: int = SAMPLES,
) -> list[float]:
    """Measure what the outputs lose when constants are changed, for each of several changes.

    All constants are inputs of one session, so that none is loaded twice.

    Args:
        model: The model.
        changes: Constants of it, with other values; each change by itself.
        samples: The first few of them are run.
        progress: Told the share that is done.
        most: How many samples, or complete feeds, are run.

    Returns:
        For each change the squared error of the float outputs, each relative to its own variance,
        averaged over them.
    """
    changed = {id(constant): constant for change in changes for constant, _ in change}
    names = {key: f"onnxcomp.constant.{place}" for place, key in enumerate(changed)}
    constants = {names[key]: constant for key, constant in changed.items()}
    data, folder = referring_bytes(override(model, constants))
    session = open_session(data, threads=1, label="the model", folder=folder)
    plain = {name: constant.values for name, constant in constants.items()}
    feeds, wanted = _run_until_enough(session, islice(samples.batched(1), most), plain)

    def run(weights: Mapping[str, NDArray[Any]]) -> Iterable[Outputs]:
        for feed in feeds:
            yield _floats(session.run({**feed, **weights}).values())

    errors = []
    for place, change in enumerate(changes):
        values = {names[id(constant)]: each for constant, each in change}
        errors.append(_relative(wanted, run(plain | values)))
        progress((place + 1) / len(changes))
    return errors


def output_costs(errors: ArrayLike, probed: ArrayLike, losses: ArrayLike) -> Floats:
    """Return what the outputs lose at every error of a layer, from what they lose at a few.

    What an error means is known where it was probed; in between it is interpolated, both on a
    logarithmic scale, and beyond the ends it means what it does there. A layer that no sample
    needs counts like the median one.

    Args:
        errors: Squared errors of each layer, shape (layers, choices); infinite for no choice.
        probed: Those that were probed, ascending, shape (layers, probes).
        losses: Squared errors of the outputs there, likewise.

    Returns:
        Shape (layers, choices).
    """
    wanted, known, lost = (np.asarray(each, np.float64) for each in (errors, probed, losses))
    seen = (lost > 0) & (known > 0)
    factors = np.divide(lost, known, where=seen, out=np.ones_like(lost))
    for probe, of_probe in zip(factors.T, seen.T, strict=True):
        probe[~of_probe] = np.median(probe[of_probe]) if of_probe.any() else 1.0
    logs = [np.log(np.maximum(each, TINY)) for each in (wanted, known)]
    spread = [
        np.interp(*each) for each in zip(*logs, np.log(np.maximum(factors, TINY)), strict=True)
    ]
    costs: Floats = wanted * np.exp(np.reshape(spread, wanted.shape))
    return costs


def _run_until_enough(
    session: Session, feeds: Iterable[Feed], constants: Mapping[str, NDArray[Any]]
) -> tuple[list[Feed], list[Outputs]]:
    """Return the first feeds whose outputs tell enough, with these."""
    taken, outputs, rows = [], [], 0
    for feed in feeds:
        taken.append(feed)
        outputs.append(_floats(session.run({**feed, **constants}).values()))
        sizes = (each.size // each.shape[-1] for each in outputs[-1] if each.ndim and each.size)
        rows += min(sizes, default=1)
        if any(len(taken) >= count and rows >= least for count, least in ENOUGH):
            break
    return taken, outputs


def _floats(outputs: Iterable[NDArray[Any]]) -> Outputs:
    return [each.astype(np.float64) for each in outputs if each.dtype.kind == "f"]


def _relative(wanted: Sequence[Outputs], given: Iterable[Outputs]) -> float:
    """Return the mean over the outputs of squared error by variance, all samples together.

    Elements that are not finite, as those that a mask hides, do not count, nor do outputs that
    are always the same. An element that is no longer finite is missed as if it were 0.
    """
    count = len(wanted[0])
    missed, total = np.zeros(count), np.zeros(count)
    means = [_mean([each[place] for each in wanted]) for place in range(count)]
    for first, second in zip(wanted, given, strict=True):
        for place, (one, two) in enumerate(zip(first, second, strict=True)):
            known = np.isfinite(one)
            total[place] += np.sum(np.square(one[known] - means[place]))
            if one.shape == two.shape:
                other = np.where(np.isfinite(two), two, 0.0)
                missed[place] += np.sum(np.square(one[known] - other[known]))
    varied = total > 0
    return float(np.mean(missed[varied] / total[varied])) if varied.any() else 0.0


def _mean(arrays: Sequence[NDArray[np.float64]]) -> float:
    """Return the mean of what is finite."""
    finite = np.concatenate([each[np.isfinite(each)] for each in arrays])
    return float(finite.mean()) if finite.size else 0.0
