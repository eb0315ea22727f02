"""One constant in the place of two."""

from __future__ import annotations

import hashlib
from collections import Counter
from typing import TYPE_CHECKING

import numpy as np

from onnxcomp.graph.values import flat_bytes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from onnxcomp.graph.model import Graph, Model
    from onnxcomp.graph.values import Constant
    from onnxcomp.graph.weights import Weight

SMALLEST = 128
"""Sharing fewer bytes saves nothing."""

SAMPLED = 64
"""Elements that are compared before all are."""


def merge_identical(model: Model, candidates: Sequence[Weight]) -> list[tuple[Weight, Weight]]:
    """Let all readers of byte-identical weights read the first of them.

    Args:
        model: The model; changed in place.
        candidates: Weights of it that may be merged. They are loaded one at a time, and whole only
            if another has their type, their shape and their first elements.

    Returns:
        Each weight that is kept, with one that is gone.
    """
    first: dict[tuple[object, ...], Weight] = {}
    merged = []
    alike = [weight for weight in candidates if weight.tensor.nbytes >= SMALLEST]
    for key in (_kind, _sample):
        keys = [key(weight) for weight in alike]
        counts = Counter(keys)
        alike = [each for each, own in zip(alike, keys, strict=True) if counts[own] > 1]
    for weight in alike:
        kept = first.setdefault(_content(weight), weight)
        if kept is not weight and merge_constants(model, kept.tensor, weight.tensor):
            merged.append((kept, weight))
    return merged


def _kind(weight: Weight) -> tuple[object, ...]:
    return weight.dtype, weight.shape


def _sample(weight: Weight) -> tuple[object, ...]:
    """Return the first elements: tensors in files are read whole only if they may be alike."""
    values = np.ascontiguousarray(weight.load().reshape(-1)[:SAMPLED])
    return *_kind(weight), flat_bytes(values).tobytes()


def _content(weight: Weight) -> tuple[object, ...]:
    digest = hashlib.sha256(flat_bytes(np.ascontiguousarray(weight.load())).data)
    return *_kind(weight), digest.hexdigest()


def merge_constants(model: Model, kept: Constant, removed: Constant) -> bool:
    """Let all readers of ``removed`` read ``kept``, which moves to where all of them see it.

    Returns:
        Whether that was possible: constants of different functions cannot be shared.
    """
    home, other = _scope_of(model, kept), _scope_of(model, removed)
    if home is not other:
        main = {id(scope) for scope in model.scopes()}
        if id(home) not in main or id(other) not in main:
            return False
        _move_to_main(model, home, kept)
    # Its Constant node may stand after the new readers; an initializer stands before all.
    kept.node = None
    for reader in list(removed.outputs):
        reader.inputs = [kept if each is removed else each for each in reader.inputs]
    other.constants = [each for each in other.constants if each is not removed]
    return True


def _scope_of(model: Model, constant: Constant) -> Graph:
    return next(
        scope for scope in model.all_scopes() if any(each is constant for each in scope.constants)
    )


def _move_to_main(model: Model, home: Graph, constant: Constant) -> None:
    """Make a constant an initializer of the main graph, under a name that no scope has."""
    names = Counter(
        tensor.name
        for tensor in {
            id(tensor): tensor
            for scope in model.scopes()
            for node in scope.nodes
            for tensor in (*scope.inputs, *scope.constants, *node.inputs, *node.outputs)
        }.values()
    )
    name = constant.name
    while names[name] > (name == constant.name):
        name += "_"
    constant.name = name
    if home is not model:
        home.constants = [each for each in home.constants if each is not constant]
        model.constants.append(constant)
