"""Channels die, what multiplied them is repaired, and then they are cut out."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from onnxcomp.errors import PassError
from onnxcomp.statistics import layers
from onnxcomp_passes.prune_channels.consumers import mask, parts_that, supports
from onnxcomp_passes.prune_channels.finding import find_groups
from onnxcomp_passes.prune_channels.removal import remove
from onnxcomp_passes.prune_channels.repairing import repair_all

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from onnxcomp.graph import Model
    from onnxcomp.pipeline import Context
    from onnxcomp.runtime import Feed
    from onnxcomp_passes.prune_channels.consumers import Channels
    from onnxcomp_passes.prune_channels.groups import Group
    from onnxcomp_passes.prune_channels.repairing import Repair

    Key = tuple[tuple[str, int, bytes], ...]


def kill(
    model: Model,
    original: Model,
    groups: Sequence[Group],
    removed: Sequence[Channels],
    context: Context,
    *,
    refitted: Collection[int],
) -> dict[int, Repair]:
    """Make channels dead, and let what is left make up for them; shapes stay.

    Args:
        model: The model; it is changed.
        original: A copy of it.
        groups: Groups of its channels.
        removed: Which channels of each group go.
        context: Samples, or statistics of the model; without either nothing is repaired.
        refitted: Weights that may be refitted, by identity.

    Returns:
        What was done to weights, by identity.
    """
    found = layers(model)
    by_tensor = {id(layer.weight.tensor): layer for layer in found}
    left = supports(groups, removed, by_tensor)
    for layer in found:
        key = id(layer.weight.tensor)
        # A depthwise filter can make up for nothing but the scale of its own channel.
        is_able = bool(layer.uses) and not layer.weight.is_depthwise
        if is_able and key in refitted and key not in left:
            matrices, _, inputs = layer.form.matrices
            left[key] = np.ones((matrices, inputs), bool)
    for group, gone in zip(groups, removed, strict=True):
        if gone.size:
            mask(group, gone)
    return repair_all(model, original, left, context)


def cut(
    model: Model, groups: Sequence[Group], removed: Sequence[Channels], feed: Feed | None
) -> None:
    """Cut channels out of a model.

    Args:
        model: The model in which the groups were found, a copy of it, or either with other values
            and more biases.
        groups: Groups of channels.
        removed: Which channels of each go.
        feed: One sample of what the model takes, if there is one.

    Raises:
        PassError: A group that loses channels is no group of the model.
    """
    wanted = {_key(group): gone for group, gone in zip(groups, removed, strict=True) if gone.size}
    chosen = [group for group in find_groups(model, feed)[0] if _key(group) in wanted]
    lost = wanted.keys() - {_key(group) for group in chosen}
    if lost:
        name = min(lost)[0][0]
        raise PassError(
            f"channels of {name!r} cannot be cut: they are no group any more once what multiplies "
            f"them is repaired; leave it out with --exclude {name!r}"
        )
    kept = []
    for group in chosen:
        kept.append(np.ones(group.count, bool))
        kept[-1][wanted[_key(group)]] = False
    remove(model, chosen, kept)


def _key(group: Group) -> Key:
    """Return what tells a group from others, whatever biases were added since."""
    parts = parts_that("consumes", group) or [*group.tensors]
    return tuple((part.tensor.name, part.axis, part.places.tobytes()) for part in parts)
