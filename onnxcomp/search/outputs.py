"""What each output of a model holds, and the floor that it is held to where none is asked for."""

from __future__ import annotations

import re
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np

from onnxcomp.api import OutputFloor
from onnxcomp.runtime.dtypes import is_float

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from onnxcomp.runtime import Feed, Samples, Session

DROP, SCORES_SNR, NUMBERS_SNR = 0.01, 15.0, 20.0
"""The default floors: a share of rows, and dB. 20 dB is a hundredth of the energy, too."""

LOOKED_AT = 2
"""Samples that outputs are told apart by."""

ROUNDING = 1e-2
"""By how much a sum of probabilities, of float16 perhaps, may be off 1."""

MATRIX = 2
"""Axes of what has a row for each sample."""

OPPOSITES = {"past": "present", "in": "out", "input": "output", "prev": "next"}
"""Words by which a state that goes in is called otherwise than the one that comes out."""

WORD = re.compile(r"[A-Z]?[a-z]+|[A-Z]+|\d+")

NAMED = 3
"""Outputs of a kind that are named one by one."""

WORDS = {
    "probabilities": f"at least {1 - DROP:g} of the rows of {{}} agree with the original's",
    "scores": f"at least {1 - DROP:g} of the rows of {{}} agree, with an SNR of at least "
    f"{SCORES_SNR:g} dB",
    "numbers": f"an SNR of at least {NUMBERS_SNR:g} dB of {{}}",
    "labels": f"at least {1 - DROP:g} of {{}} equal to the original's",
    "state": "{}, a state that is fed back, is not judged",
}


def output_floors(session: Session, samples: Samples) -> tuple[OutputFloor, ...]:
    """Return what each output must not miss, by what it holds for a few samples.

    Rows that are probabilities, or logarithms of such, have to agree. Other rows of two axes may
    be scores: they have to agree and keep their SNR. All other numbers keep a higher one. Labels
    are equal. The state of a recurrent model is not judged: what becomes of it shows in the rest.

    Args:
        session: The original.
        samples: Those that results are compared on.

    Raises:
        DataError: The samples do not fit.
    """
    runs = [(feed, session.run(feed)) for feed in islice(samples.batched(1), LOOKED_AT)]
    states = states_of(*runs[0])
    return tuple(
        OutputFloor(output=name, kind="state")
        if name in states
        else floor_of(name, [outputs[name] for _, outputs in runs])
        for name in runs[0][1]
    )


def floors_in_words(floors: Sequence[OutputFloor]) -> str:
    """Return what outputs are taken for and must not miss, in one line."""
    told = []
    for kind, words in WORDS.items():
        names = [repr(each.output) for each in floors if each.kind == kind]
        if len(names) > NAMED + 1:
            names = [*names[:NAMED], f"{len(names) - NAMED} others"]
        if names:
            listed = " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))
            told.append(words.format(listed))
    return "; ".join(told)


def floor_of(name: str, arrays: Sequence[NDArray[Any]]) -> OutputFloor:
    """Return the floor of an output that is no state.

    Args:
        name: Its name.
        arrays: What it gives for some samples.
    """
    if not is_float(arrays[0].dtype):
        return OutputFloor(output=name, kind="labels", max_drop=DROP)
    have_rows = all(each.ndim >= MATRIX and each.size and each.shape[-1] > 1 for each in arrays)
    if have_rows and all(map(_sums_to_one, arrays)):
        return OutputFloor(output=name, kind="probabilities", max_drop=DROP)
    if have_rows and all(each.ndim == MATRIX for each in arrays):
        return OutputFloor(output=name, kind="scores", max_drop=DROP, min_snr=SCORES_SNR)
    return OutputFloor(output=name, kind="numbers", min_snr=NUMBERS_SNR)


def _sums_to_one(array: NDArray[Any]) -> bool:
    """Tell whether rows along the last axis are probabilities, or logarithms of such."""
    rows = array.astype(np.float64).reshape(-1, array.shape[-1])
    rows = rows[~np.isnan(rows).any(axis=1)]
    if not len(rows):
        return False
    with np.errstate(over="ignore"):
        values = rows if rows.min() >= 0 else np.exp(rows)
    return bool(np.abs(values.sum(axis=1) - 1).max() <= ROUNDING)


def states_of(feed: Feed, outputs: Mapping[str, NDArray[Any]]) -> set[str]:
    """Return the outputs that are fed back to an input; none where nothing else would be left.

    There is always an input besides, and an output.

    Args:
        feed: What the model was fed.
        outputs: What it gave.
    """
    pairs = {
        (given, name)
        for given, value in feed.items()
        for name, array in outputs.items()
        if _is_next(given, value, name, array)
    }
    inputs, found = ({pair[place] for pair in pairs} for place in (0, 1))
    return found if len(inputs) < len(feed) and len(found) < len(outputs) else set()


def _is_next(given: str, value: NDArray[Any], name: str, array: NDArray[Any]) -> bool:
    """Tell whether an output is what an input is to be next: by type, shape and names."""
    if value.dtype != array.dtype or value.ndim != array.ndim:
        return False
    first, second = ([word.lower() for word in WORD.findall(each)] for each in (given, name))
    others = sum(one != other for one, other in zip(value.shape, array.shape, strict=True))
    if "past" in first and "present" in second:
        # A cache grows along one axis, and its input often has the longer name.
        rest = iter(first)
        return others <= 1 and all(word in rest for word in second if word != "present")
    if others:
        return False
    if name.startswith(given) or given.startswith(name):
        return True
    own = [word for word in first if word.isalpha() and word not in OPPOSITES]
    return bool(own) and second == [OPPOSITES.get(word, word) for word in first]
