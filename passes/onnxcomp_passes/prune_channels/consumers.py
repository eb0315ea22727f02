"""What multiplies channels of a group, and which of its inputs each channel is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from onnxcomp.graph import constant_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from onnxcomp.statistics import Form, Layer
    from onnxcomp_passes.prune_channels.groups import Group, Part, Role

    Floats = NDArray[np.float64]
    Channels = NDArray[np.intp]


@dataclass(frozen=True, eq=False)
class Consumer:
    """A constant that is multiplied with channels of a group.

    Args:
        parts: Where the channels lie in it.
        layer: Its layer; None where nothing is known of what it is multiplied with.
    """

    parts: tuple[Part, ...]
    layer: Layer | None

    @property
    def columns(self) -> NDArray[np.intp]:
        """The layer's inputs that each channel is, shape (groups, channels, width)."""
        assert self.layer is not None  # noqa: S101 - the caller has looked
        found = [_columns(self.layer.form, part) for part in self.parts]
        return np.concatenate(found, axis=2)

    def squares(self) -> Floats:
        """Return the squared norm of what is multiplied with each channel, shape (channels,)."""
        found: Floats = np.sum([squares(part) for part in self.parts], axis=0)
        return found


def consumers(group: Group, layers: Mapping[int, Layer]) -> list[Consumer]:
    """Return what multiplies a group's channels.

    Args:
        group: The group.
        layers: The model's layers, by the identity of their constants.
    """
    by_tensor: dict[int, list[Part]] = {}
    for part in parts_that("consumes", group):
        by_tensor.setdefault(id(part.tensor), []).append(part)
    found = []
    for key, parts in by_tensor.items():
        layer = layers.get(key)
        found.append(Consumer(tuple(parts), layer if layer and layer.uses else None))
    return found


def parts_that(role: Role, group: Group) -> list[Part]:
    """Return where a group's channels are produced, consumed or followed by constants."""
    return [part for part in group.weights if any(use.role == role for use in part.uses)]


def squares(part: Part) -> Floats:
    """Return the squared norm of what belongs to each channel in a constant, shape (channels,)."""
    values = np.moveaxis(constant_of(part.tensor).values, part.axis, 0)
    rows = np.square(values.reshape(len(values), -1).astype(np.float64)).sum(axis=1)
    found: Floats = rows[part.places].sum(axis=1)
    return found


def mask(group: Group, removed: Channels) -> None:
    """Set what channels are multiplied with to zero, which makes them dead."""
    for part in parts_that("consumes", group):
        multiplied = constant_of(part.tensor)
        values = multiplied.values.copy()
        np.moveaxis(values, part.axis, 0)[part.places[removed].reshape(-1)] = 0
        multiplied.values = values


def supports(
    groups: Sequence[Group], removed: Sequence[Channels], layers: Mapping[int, Layer]
) -> dict[int, NDArray[np.bool_]]:
    """Return which inputs are left of each layer that loses some.

    Args:
        groups: Groups of channels.
        removed: Which channels of each group go.
        layers: The model's layers, by the identity of their constants.

    Returns:
        By the same identity; shape (groups, inputs).
    """
    found: dict[int, NDArray[np.bool_]] = {}
    for group, gone in zip(groups, removed, strict=True):
        for consumer in consumers(group, layers) if gone.size else ():
            if consumer.layer is None:
                continue
            matrices, _, inputs = consumer.layer.form.matrices
            key = id(consumer.layer.weight.tensor)
            left = found.setdefault(key, np.ones((matrices, inputs), bool))
            for row, columns in zip(left, consumer.columns, strict=True):
                row[columns[gone].reshape(-1)] = False
    return found


def dead_outputs(
    groups: Sequence[Group], removed: Sequence[Channels], layers: Mapping[int, Layer]
) -> dict[int, NDArray[np.bool_]]:
    """Return which outputs go of each layer that loses some.

    Args:
        groups: Groups of channels.
        removed: Which channels of each group go.
        layers: The model's layers, by the identity of their constants.

    Returns:
        By the same identity; shape (groups, outputs).
    """
    found: dict[int, NDArray[np.bool_]] = {}
    for group, gone in zip(groups, removed, strict=True):
        for part in parts_that("produces", group):
            layer = layers.get(id(part.tensor))
            if layer is None or not layer.uses:
                continue
            is_dead = np.zeros(layer.form.tensor[part.axis], bool)
            is_dead[part.places[gone].reshape(-1)] = True
            rows = _lying(is_dead, layer.form, part.axis)[:, :, 0]
            key = id(part.tensor)
            found[key] = found.get(key, False) | rows
    return found


def _lying(along: NDArray[Any], form: Form, axis: int) -> NDArray[Any]:
    """Return what lies along an axis of a tensor as it lies in the matrices."""
    shape = [1] * len(form.tensor)
    shape[axis] = -1
    return form.to_matrices(np.broadcast_to(along.reshape(shape), form.tensor))


def _columns(form: Form, part: Part) -> NDArray[np.intp]:
    """Return the inputs of a layer's matrices that each channel is."""
    channels = np.full(form.tensor[part.axis], -1, np.int32)
    channels[part.places] = np.arange(len(part.places), dtype=np.int32)[:, None]
    labels = _lying(channels, form, part.axis)[:, 0]
    order = np.argsort(labels, axis=1, kind="stable")
    of_none = np.count_nonzero(labels < 0, axis=1)
    known = np.stack([row[none:] for row, none in zip(order, of_none, strict=True)])
    return known.reshape(len(labels), len(part.places), -1)
