"""Scales and shifts folded into the layers that alone read them.

``W (s x + b)`` is ``(W s) x + W b``: a weight takes the scale of each input channel, and a bias
the shift, except where zeros are padded beside what was shifted. There the scale still goes,
since ``s x + b`` is ``s (x + b / s)``. The last pieces of a GELU or of a normalization stay.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from onnxcomp.graph import constant_of
from onnxcomp_passes.simplify.affine import BIAS_PLACE, STANDARD, affine
from onnxcomp_passes.simplify.fusions import ends_fusion

if TYPE_CHECKING:
    from collections.abc import Sequence

    import onnx_graphsurgeon as gs

    from onnxcomp_passes.simplify.affine import Affine, Floats, Place

READERS = {"Conv", "Gemm", "MatMul"}

UNPADDED = {"NOTSET", "VALID"}

MATRIX = 2


def fold_forward(place: Place) -> None:
    """Fold scales and shifts of one scope into the layers after them, the last ones first."""
    for node in reversed(list(place.scope.nodes)):
        if not place.has(node):
            continue
        found = affine(node, place.may_fold)
        if found is None or ends_fusion(place, found):
            continue
        readers = _readers(place, node.outputs[0])
        factors = _factors(found, readers) if readers else None
        if factors is None:
            continue
        scale, shift = factors
        if not shift.any() or all(each.takes_shift for each in readers):
            _fold(place, found, readers, scale, shift)
        elif (scale == 1).all():
            _fold_scale_before(place, found, readers, shift)


@dataclass(frozen=True, eq=False)
class _Reader:
    """A layer that reads a tensor: a Conv, a Gemm or a MatMul, and its weight's values."""

    node: gs.Node
    values: Floats

    @property
    def axis(self) -> int:
        """The weight's axis of the input channels."""
        return int(self.node.op == "Conv" or bool(self.node.attrs.get("transB", 0)))

    @property
    def channels(self) -> int:
        """How many channels the layer reads."""
        return int(self.values.shape[self.axis]) * int(self.node.attrs.get("group", 1))

    @property
    def takes_shift(self) -> bool:
        """Whether a shift of the inputs is a shift of the outputs, which a bias can be."""
        if self.node.op == "Conv":
            auto = self.node.attrs.get("auto_pad", "NOTSET")
            return auto in UNPADDED and not any(self.node.attrs.get("pads", ()))
        return bool(self.node.op == "Gemm" and self.node.attrs.get("beta", 1.0) == 1)

    def scaled(self, scale: Floats) -> Floats:
        """Return the weight for inputs that are not scaled yet, shape (1,) or (channels,)."""
        groups = int(self.node.attrs.get("group", 1))
        grouped = self.values.reshape(groups, -1, *self.values.shape[1:])
        sizes = [1] * grouped.ndim
        sizes[0], sizes[self.axis + 1] = groups, self.channels // groups
        spread = np.broadcast_to(scale, self.channels).reshape(sizes)
        return (grouped * spread).reshape(self.values.shape)

    def bias(self, shift: Floats) -> Floats:
        """Return the bias that does what a shift of the inputs did."""
        kept = 0 if self.node.op == "Conv" else 1 - self.axis
        summed = tuple(axis for axis in range(self.values.ndim) if axis != kept)
        added: Floats = self.scaled(shift).sum(axis=summed) * self.node.attrs.get("alpha", 1.0)
        for old in self.node.inputs[BIAS_PLACE:]:
            added = added + constant_of(old).values if old.name else added
        return added


def _readers(place: Place, tensor: gs.Tensor) -> list[_Reader]:
    """Return what reads a tensor, if all are layers that take a scale of it."""
    if place.gives(tensor):
        return []
    found = [_reader(place, node, tensor) for node in tensor.outputs]
    layers = [each for each in found if each is not None]
    return layers if len(layers) == len(found) else []


def _reader(place: Place, node: gs.Node, tensor: gs.Tensor) -> _Reader | None:
    if node.op not in READERS or node.domain not in STANDARD or not place.has(node):
        return None
    read, weight, *biases = node.inputs
    is_own = read is tensor and len(weight.outputs) == 1
    if (
        not is_own
        or not place.may_fold(weight)
        or not all(place.may_fold(each) for each in biases if each.name)
    ):
        return None
    is_matrix = node.op == "Conv" or len(weight.shape) == MATRIX
    if not is_matrix or node.attrs.get("transA", 0):
        return None
    return _Reader(node, weight.values.astype(np.float64))


def _factors(found: Affine, readers: Sequence[_Reader]) -> tuple[Floats, Floats] | None:
    """Return scale and shift, where all readers see the same channels, and as many as it reads."""
    first, shape = readers[0], found.source.shape
    is_image = first.node.op == "Conv"
    if any((each.node.op == "Conv") != is_image for each in readers):
        return None
    rank = first.values.ndim if is_image else MATRIX
    if first.node.op == "MatMul":
        rank = max(1, *(len(each.shape) for each in found.parameters), len(shape or ()))
    axis = 1 if is_image else rank - 1
    with np.errstate(all="ignore"):
        factors = found.factors(rank, axis)
    if factors is None:
        return None
    sizes = {len(each) for each in factors}
    is_known = shape is not None and len(shape) == rank and shape[axis] == first.channels
    return factors if sizes == {1} or (is_known and sizes <= {1, first.channels}) else None


def _fold(
    place: Place, found: Affine, readers: Sequence[_Reader], scale: Floats, shift: Floats
) -> None:
    """Fold a scale and a shift into all readers, unless numbers overflow."""
    if not _give(place, found, readers, scale, shift):
        return
    for each in readers:
        each.node.inputs[0] = found.source
    place.remove(found.node)


def _fold_scale_before(
    place: Place, found: Affine, readers: Sequence[_Reader], shift: Floats
) -> None:
    """Let a shift that stays come before the scale that is before it, which then goes."""
    maker = place.only_maker(found.source)
    before = None if maker is None else affine(maker, place.may_fold)
    if before is None or ends_fusion(place, before):
        return
    factors = _factors(before, readers)
    if factors is None or factors[1].any():
        return
    scale = factors[0]
    parameter = found.parameters[0]
    behind = readers[0].values.ndim - MATRIX if readers[0].node.op == "Conv" else 0
    aligned = scale.reshape(-1, *[1] * behind) if len(scale) > 1 else scale.reshape(())
    with np.errstate(all="ignore"):
        moved = (parameter.values / aligned).astype(parameter.dtype)
    nothing = np.zeros_like(shift)
    if not np.isfinite(moved).all() or not _give(place, before, readers, scale, nothing):
        return
    if len(parameter.outputs) == 1:
        place.ledger.set_values(parameter, moved, f"divided by a {before.node.op} folded forward")
    else:
        found.node.inputs[1 - found.place] = place.constant(f"{parameter.name}_moved", moved)
    found.node.inputs[found.place] = before.source
    place.remove(before.node)


def _give(
    place: Place, found: Affine, readers: Sequence[_Reader], scale: Floats, shift: Floats
) -> bool:
    """Let weights and biases take a scale and a shift; False if numbers overflow."""
    changed = []
    for each in readers:
        weight = each.node.inputs[1]
        with np.errstate(all="ignore"):
            values = each.scaled(scale).astype(weight.dtype)
            bias = each.bias(shift).astype(weight.dtype) if shift.any() else None
        if not all(np.isfinite(one).all() for one in (values, bias) if one is not None):
            return False
        changed.append((each.node, values, bias))
    for node, values, bias in changed:
        place.fold(found, node, values, bias)
    return True
