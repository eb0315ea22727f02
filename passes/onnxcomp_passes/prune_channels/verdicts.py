"""What became of each weight, and why."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from onnxcomp.pipeline import change, skip
from onnxcomp.recovery import relative_error

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from onnxcomp.graph import Weight
    from onnxcomp.verdicts import Verdict
    from onnxcomp_passes.prune_channels.consumers import Channels
    from onnxcomp_passes.prune_channels.groups import Frozen, Group, Part
    from onnxcomp_passes.prune_channels.repairing import Repair

WORDS = {"produces": "outputs", "consumes": "inputs", "follows": "elements"}


@dataclass(frozen=True, eq=False)
class Cut:
    """What a constant lost.

    Args:
        part: Where the channels of a group lay in it.
        removed: Which of them went.
    """

    part: Part
    removed: Channels


def cuts_of(groups: Sequence[Group], removed: Sequence[Channels]) -> dict[int, list[Cut]]:
    """Return what each constant loses, by its identity."""
    found: dict[int, list[Cut]] = {}
    for group, gone in zip(groups, removed, strict=True):
        for part in group.weights if gone.size else ():
            found.setdefault(id(part.tensor), []).append(Cut(part, gone))
    return found


def judge(
    weight: Weight, values: NDArray[Any], cuts: Sequence[Cut], repair: Repair | None
) -> Verdict:
    """Return the verdict on a weight that lost channels, or was refitted for what others lost.

    Args:
        weight: The weight, before channels are cut out.
        values: What it was.
        cuts: What it is to lose.
        repair: How it was repaired.
    """
    left, words = weight.load().copy(), []
    shape = list(weight.shape)
    for cut in cuts:
        axis, places = cut.part.axis, cut.part.places[cut.removed].reshape(-1)
        np.moveaxis(left, axis, 0)[places] = 0
        shape[axis] -= places.size
    for axis in sorted({cut.part.axis for cut in cuts}):
        role = next(cut.part.uses[0].role for cut in cuts if cut.part.axis == axis)
        words.append(f"{shape[axis]} of {weight.shape[axis]} {WORDS[role]} kept")
    before = weight.tensor.nbytes
    after = before * int(np.prod(shape)) // max(weight.size, 1)
    words = words or ["all kept"]
    if repair is not None:
        after += repair.added
        words.append(repair.how)
    lost = relative_error(values, left)
    return change(weight, ", ".join(words), before=before, after=after, error=lost)


def leave(
    weight: Weight,
    groups: Sequence[Group],
    frozen: Sequence[Frozen],
    unselected: Mapping[int, str],
) -> Verdict:
    """Return the verdict on a weight that keeps all its channels.

    Args:
        weight: The weight.
        groups: The groups that might have lost channels.
        frozen: Axes that could not.
        unselected: Why the groups of other weights were not among them, by identity.
    """
    key = id(weight.tensor)
    if key in unselected:
        return skip(weight, unselected[key])
    if any(part.tensor is weight.tensor for group in groups for part in group.weights):
        return skip(weight, "keeps all its channels: none was chosen to go")
    reasons = {each.axis: each.reason for each in frozen if each.name == weight.name}
    axis = weight.output_axis if weight.output_axis in reasons else next(iter(reasons), None)
    if axis is not None:
        return skip(weight, f"its channels stay: {reasons[axis]}")
    return skip(weight, weight.unsuitable or "has no channels that could go")
