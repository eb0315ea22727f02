"""Byte-identical initializers become one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from onnxcomp.graph import merge_identical
from onnxcomp.pipeline import change

if TYPE_CHECKING:
    from onnxcomp.graph import Model
    from onnxcomp.pipeline import Pass
    from onnxcomp.verdicts import Verdict


def share_identical(model: Model, chosen_by: Pass) -> list[Verdict]:
    """Let all readers of identical weights read the first of them.

    Returns:
        A verdict on each weight that is gone.
    """
    candidates, _ = chosen_by.candidates(model)
    return [
        change(gone, f"identical to {kept.name}", before=gone.tensor.nbytes, after=0, error=0.0)
        for kept, gone in merge_identical(model, candidates)
    ]
