"""Removing channels: weights are cut, integers that count channels fall, declarations follow."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from onnxcomp.errors import ModelError
from onnxcomp.graph import Constant, Variable, constant_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    import onnx_graphsurgeon as gs
    from numpy.typing import NDArray

    from onnxcomp.graph import Graph, Model
    from onnxcomp_passes.prune_channels.groups import Group, Integers

    Kept = Sequence[NDArray[np.bool_]]

END = int(np.iinfo(np.int32).max)
"""Behind the end of any axis."""


def remove(model: Model, groups: Sequence[Group], kept: Kept) -> None:
    """Remove channels from a model, in place.

    Args:
        model: The model in which the groups were found, not changed since.
        groups: Groups that were found in it; those that are missing stay whole.
        kept: Which channels of each group stay; shape (count,) each.

    Raises:
        ModelError: Nothing would stay of a group.
    """
    for group, mask in zip(groups, kept, strict=True):
        if not mask.any():
            name = (*group.weights, *group.tensors)[0].tensor.name
            raise ModelError(f"cannot remove all {group.count} channels of {name!r}; keep one")
    removed = _removed(groups, kept)
    copies = _set_integers(model, groups, kept)
    for tensor, axes in removed.values():
        for each in (tensor, *copies.get(id(tensor), ())):
            _cut(each, axes)


Removed = dict[int, tuple["gs.Tensor", dict[int, "NDArray[np.int64]"]]]
"""By identity of the tensor: which elements of its axes go."""


def _removed(groups: Sequence[Group], kept: Kept) -> Removed:
    removed: Removed = {}
    for group, mask in zip(groups, kept, strict=True):
        for part in (*group.weights, *group.tensors):
            _, axes = removed.setdefault(id(part.tensor), (part.tensor, {}))
            before = axes.get(part.axis, np.zeros(0, np.int64))
            axes[part.axis] = np.concatenate([before, part.places[~mask].ravel()])
    return removed


def _cut(tensor: gs.Tensor, axes: dict[int, NDArray[np.int64]]) -> None:
    """Remove elements of a constant, or what was declared of them."""
    if isinstance(tensor, Constant):
        values = tensor.values
        for axis, places in axes.items():
            values = np.delete(values, places, axis)
        tensor.values = values
    elif isinstance(tensor, Variable) and tensor.shape is not None:
        shape = list(tensor.shape)
        for axis, places in axes.items():
            size = shape[axis]
            if isinstance(size, int):
                shape[axis] = size - len(places)
        tensor.shape = shape


def _set_integers(model: Model, groups: Sequence[Group], kept: Kept) -> dict[int, list[Constant]]:
    """Let integers that count channels fall.

    Returns:
        Copies of constants, by the identity of what they are copies of, which has other readers.
    """
    changes = _changes(groups, kept)
    names = {each.name for scope in model.all_scopes() for each in _tensors(scope)}
    outputs = {id(each) for scope in model.all_scopes() for each in scope.outputs}
    copies: dict[int, list[Constant]] = {}
    for integers, values in changes.items():
        node, place = integers.node, integers.place
        array = np.array(integers.values, np.int64)
        array[list(values)] = list(values.values())
        if isinstance(place, str):
            _set_attribute(node, place, array)
        elif place >= len(node.inputs):
            _add_input(node, array, names)
        elif len(node.inputs[place].outputs) == 1 and id(node.inputs[place]) not in outputs:
            lone = constant_of(node.inputs[place])
            lone.values = _like(lone, array)
        else:
            old = constant_of(node.inputs[place])
            copied = Constant(_free(f"{old.name}.pruned", names), _like(old, array))
            copies.setdefault(id(old), []).append(copied)
            node.inputs = [copied if at == place else each for at, each in enumerate(node.inputs)]
    return copies


def _changes(groups: Sequence[Group], kept: Kept) -> dict[Integers, dict[int, int]]:
    """Return what integers become, by their index."""
    changes: dict[Integers, dict[int, int]] = {}
    for group, mask in zip(groups, kept, strict=True):
        for count in group.counts:
            removed = int(count.shares[~mask].sum())
            if removed:
                values = changes.setdefault(count.integers, {})
                fewer = removed if count.value > 0 else -removed
                values[count.index] = values.get(count.index, count.value) - fewer
    # Where nothing is left behind a position that was stated from the end, it is the end.
    return {
        integers: {
            index: END if integers.values[index] < 0 and not value else value
            for index, value in values.items()
        }
        for integers, values in changes.items()
    }


def _tensors(scope: Graph) -> list[gs.Tensor]:
    computed = [each for node in scope.nodes for each in (*node.inputs, *node.outputs)]
    return [*scope.inputs, *scope.constants, *computed]


def _set_attribute(node: gs.Node, name: str, values: NDArray[np.int64]) -> None:
    is_list = isinstance(node.attrs.get(name), list) or len(values) > 1
    node.attrs[name] = values.tolist() if is_list else int(values[0])


def _add_input(node: gs.Node, values: NDArray[np.int64], names: set[str]) -> None:
    """Give a Split sizes of its own; it had parts of one size."""
    node.attrs.pop("num_outputs", None)
    constant = Constant(_free(f"{node.outputs[0].name}.sizes", names), values)
    node.inputs = [*node.inputs, constant]


def _like(constant: Constant, values: NDArray[np.int64]) -> NDArray[np.signedinteger]:
    return values.reshape(constant.shape).astype(constant.dtype)


def _free(name: str, names: set[str]) -> str:
    while name in names:
        name += "_"
    names.add(name)
    return name
