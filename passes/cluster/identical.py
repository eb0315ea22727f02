"""Byte-identical initializers become one."""

from __future__ import annotations

import hashlib
from collections import Counter
from typing import TYPE_CHECKING

import numpy as np

from onnxcomp.graph import merge_constants
from onnxcomp.pipeline import change

if TYPE_CHECKING:
    from onnxcomp.graph import Model, Weight
    from onnxcomp.pipeline import Pass
    from onnxcomp.verdicts import Verdict

SMALLEST = 128
"""Sharing fewer bytes saves nothing."""


def share_identical(model: Model, chosen_by: Pass) -> list[Verdict]:
    """Let all readers of identical weights read the first of them.

    Returns:
        A verdict on each weight that is gone.
    """
    first: dict[tuple[object, ...], Weight] = {}
    verdicts = []
    weights, _ = chosen_by.candidates(model)
    kinds = Counter((weight.dtype, weight.shape) for weight in weights)
    for weight in weights:
        if weight.tensor.nbytes < SMALLEST or kinds[weight.dtype, weight.shape] == 1:
            continue
        kept = first.setdefault(_content(weight), weight)
        if kept is weight or not merge_constants(model, kept.tensor, weight.tensor):
            continue
        before = weight.tensor.nbytes
        how = f"identical to {kept.name}"
        verdicts.append(change(weight, how, before=before, after=0, error=0.0))
    return verdicts


def _content(weight: Weight) -> tuple[object, ...]:
    digest = hashlib.sha256()
    for row in weight.load():
        digest.update(np.ascontiguousarray(row).data)
    return weight.dtype, weight.shape, digest.hexdigest()
