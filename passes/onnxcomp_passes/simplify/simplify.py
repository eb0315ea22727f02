"""The pass: what is simplified, and whether that is worth another file."""

from __future__ import annotations

from functools import partial
from math import prod
from typing import TYPE_CHECKING, ClassVar, TypeGuard

import numpy as np

from onnxcomp.graph import (
    SparseTensorValues,
    copy_model,
    count_bytes,
    is_fixed,
    merge_identical,
    rewritten,
    store_of,
    weights,
)
from onnxcomp.pipeline import Pass, Stage, skip
from onnxcomp_passes.simplify.activations import write_hard_sigmoids
from onnxcomp_passes.simplify.affine import Place
from onnxcomp_passes.simplify.folding import fold_backward
from onnxcomp_passes.simplify.forwarding import fold_forward
from onnxcomp_passes.simplify.ledger import Ledger
from onnxcomp_passes.simplify.optimizer import RANDOM, optimize
from onnxcomp_passes.simplify.padding import pad_apart

if TYPE_CHECKING:
    from collections.abc import Callable

    import onnx_graphsurgeon as gs

    from onnxcomp.graph import Constant, Model, Weight
    from onnxcomp.pipeline import Context
    from onnxcomp.verdicts import Verdict

NEEDED = "is needed as it is"
UNSELECTED = "was not selected by include and exclude"

OPTIMIZED = 0.7
"""The share of the work that onnxscript's part is."""

INDICES = {np.dtype(kind) for kind in (np.int64, np.int32, np.bool_, np.object_)}
"""Types of shapes, axes, flags and words."""

LONGEST_REASON = 200

MOST_GROWTH = 4096
"""Bytes by which the file may grow: names and shapes, and never a weight."""

FIRST_OPSET = 7
"""Before, attributes told training from inference, and how operands are broadcast."""

FIRST_DROPOUT, FIRST_DROPOUT_WITH_TRAINING = 7, 12
"""Opsets from which, and before which, Dropout does nothing in all models."""


class Simplify(Pass):
    """Fold constants and BatchNormalization; remove no-ops, duplicates and dead nodes.

    Whatever is computed of constants alone is computed once, where that does not make the file
    larger, so that weights are read by the layers that they belong to. Hard sigmoids and hard
    swishes in pieces become HardSigmoid. Functions of the model are kept to rounding. What is kept
    in a store stays in it.
    """

    name: ClassVar[str] = "simplify"
    stage: ClassVar[Stage] = Stage.SIMPLIFY

    @property
    def saves_bytes(self) -> bool:
        """Whether the file shrinks; what counts is that others find the weights."""
        return False

    def apply(self, model: Model, context: Context) -> list[Verdict]:
        """Simplify the model as far as the selected tensors allow."""
        constants = [each for scope in model.all_scopes() for each in scope.constants]
        selected = [each for each in constants if self.selects(each.name)]
        if (self.include or self.exclude) and not selected:
            return [skip(weight, UNSELECTED) for weight in weights(model)]
        frozen = {id(each.held) for each in constants if _is_data(each)}
        frozen -= {id(each.held) for each in selected}

        def may_change(constant: Constant) -> bool:
            return id(constant.held) not in frozen

        ledger = Ledger()
        simple, complaint = _optimized(model, may_change)
        context.progress(OPTIMIZED)
        # First, since a three that is added and a six that divides would be folded too.
        write_hard_sigmoids(simple)
        _fold_scales(simple, may_change, ledger)
        pad_apart(simple)
        _share_identical(simple, may_change, ledger)

        def why_kept(weight: Weight) -> str:
            if store_of(weight.tensor) is not None:
                return "is kept in its store"
            return complaint or (NEEDED if may_change(weight.tensor) else UNSELECTED)

        verdicts = ledger.verdicts(model, simple, why_kept)
        is_changed = any(each.verdict == "changed" for each in verdicts)
        if not is_changed and simple.count_nodes() >= model.count_nodes():
            return verdicts
        growth = count_bytes(simple) - count_bytes(model)
        if growth > MOST_GROWTH:
            reason = f"the file would be {growth} bytes larger"
            return [skip(weight, reason) for weight in weights(model)]
        model.__dict__.update(simple.__dict__)
        return verdicts


def _is_data(constant: Constant) -> bool:
    """Whether a constant is more than a flag, an index or a shape."""
    return prod(constant.shape) > 1 and np.dtype(constant.dtype) not in INDICES


def _optimized(model: Model, may_change: Callable[[Constant], bool]) -> tuple[Model, str | None]:
    """Return a model without what onnxscript finds needless, and what it complained of."""
    prepared = copy_model(model)
    _pass_dropout_through(prepared)
    nodes = (node for scope in prepared.all_scopes() for node in scope.nodes)
    is_random = any(node.op in RANDOM and not _is_idle_dropout(node) for node in nodes)
    optimizer = partial(optimize, shares_results=not is_random)
    try:
        return rewritten(prepared, optimizer, may_change), None
    except Exception as error:  # noqa: BLE001 - another library's code; without it the rest is done
        reason = " ".join(str(error.__cause__ or error).split())
        return prepared, f"could not be optimized: {reason[:LONGEST_REASON]}"


def _is_idle_dropout(node: gs.Node) -> bool:
    """Whether nobody can switch the training mode of a Dropout on; it is off unless asked for."""
    return node.op == "Dropout" and len(node.inputs) < 3  # noqa: PLR2004 - data, ratio, training


def _pass_dropout_through(model: Model) -> None:
    """Make Identity of the Dropout of old opsets, which does nothing; onnxscript knows the new."""
    if not FIRST_DROPOUT <= model.opset < FIRST_DROPOUT_WITH_TRAINING:
        return
    outputs = {id(each) for scope in model.scopes() for each in scope.outputs}
    for scope in model.scopes():
        for node in scope.nodes:
            masks = node.outputs[1:]
            if node.op == "Dropout" and not any(x.outputs or id(x) in outputs for x in masks):
                node.op = "Identity"
                node.attrs.clear()
                node.outputs = node.outputs[:1]


def _fold_scales(model: Model, may_change: Callable[[Constant], bool], ledger: Ledger) -> None:
    """Fold scales and shifts into the layers before and after them."""
    given = {id(each) for scope in model.all_scopes() for each in scope.outputs}
    names = {
        tensor.name
        for scope in model.all_scopes()
        for tensors in ([*scope.inputs, *scope.constants], *(each.outputs for each in scope.nodes))
        for tensor in tensors
    }

    def may_fold(tensor: gs.Tensor) -> TypeGuard[Constant]:
        is_free = is_fixed(tensor) and store_of(tensor) is None and may_change(tensor)
        return is_free and id(tensor) not in given

    for top in (model, *model.local_functions):
        if top.opset >= FIRST_OPSET:
            for scope in top.scopes():
                place = Place(scope, may_fold, names, ledger)
                fold_backward(place)
                fold_forward(place)
    for scope in model.all_scopes():
        scope.constants = [
            each
            for each in scope.constants
            if each.outputs or id(each) in given or id(each.held) not in ledger.reasons
        ]


def _share_identical(model: Model, may_change: Callable[[Constant], bool], ledger: Ledger) -> None:
    candidates = [
        weight
        for weight in weights(model)
        if store_of(weight.tensor) is None
        and may_change(weight.tensor)
        and is_fixed(weight.tensor)
        and not weight.is_output
        and not isinstance(weight.tensor.held, SparseTensorValues)
    ]
    for kept, gone in merge_identical(model, candidates):
        held = ledger.owners.get(id(gone.tensor), id(gone.tensor.held))
        ledger.reasons[held] = f"identical to {kept.name}"
