"""What stays float, stored as float16: biases, normalisations, tiny weights.

A Cast makes float32 of them again, which ONNX Runtime folds when it loads a session.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from onnxcomp.graph import SparseTensorValues, StoreValues, is_fixed, weights
from onnxcomp.pipeline import change
from onnxcomp.recovery import relative_error
from onnxcomp.stores import AffineStore

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from onnxcomp.graph import Constant, Model
    from onnxcomp.verdicts import Verdict

HALF = np.dtype(np.float16)
MOST = float(np.finfo(HALF).max)
"""Larger values have no float16."""

HOW = "float16, stored, and folded when the model is loaded"
UNREAD = {"DequantizeLinear", "QuantizeLinear"}
"""Scales stay as exact as what was rounded by them."""


def halve(model: Model, selects: Callable[[str], bool]) -> list[Verdict]:
    """Store every float32 constant as float16 of which that makes the file smaller.

    Args:
        model: The model; changed in place. What is in a store, or is given out, is left alone.
        selects: Whether a tensor of a name may be changed.

    Returns:
        A verdict on each that is a weight of the model; others are biases that a repair added.
    """
    known = {id(each.tensor): each for each in weights(model)}
    outputs = {id(each) for scope in model.all_scopes() for each in scope.outputs}
    verdicts = []
    for constant, opset in _constants(model):
        if id(constant) in outputs or not selects(str(constant.name)) or not _is_halved(constant):
            continue
        values, before = constant.values, int(constant.nbytes)
        store = AffineStore(tuple(values.shape), values.dtype, values.astype(HALF), opset)
        if store.nbytes >= before:
            continue
        constant.values = StoreValues(store)
        if id(constant) in known:
            lost, weight = relative_error(values, store.load()), known[id(constant)]
            verdicts.append(change(weight, HOW, before=before, after=store.nbytes, error=lost))
    return verdicts


def _constants(model: Model) -> Iterator[tuple[Constant, int]]:
    """Yield every constant that something reads once, with its opset."""
    seen: set[int] = set()
    for top in (model, *model.local_functions):
        for scope in top.scopes():
            for node in scope.nodes:
                for tensor in node.inputs:
                    if is_fixed(tensor) and id(tensor) not in seen:
                        seen.add(id(tensor))
                        yield tensor, top.opset


def _is_halved(constant: Constant) -> bool:
    if constant.dtype != np.float32 or isinstance(constant.held, StoreValues | SparseTensorValues):
        return False
    if any(node.op in UNREAD for node in constant.outputs):
        return False
    values: Any = constant.values
    return bool((np.abs(values) <= MOST).all())


def replaced(verdicts: Sequence[Verdict], halved: Sequence[Verdict]) -> list[Verdict]:
    """Return verdicts with those in place that are of tensors which were skipped before."""
    waiting = {(each.name, each.shape): each for each in halved}
    return [
        waiting.get((each.name, each.shape), each) if each.verdict == "skipped" else each
        for each in verdicts
    ]
