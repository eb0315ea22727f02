"""Scales and shifts that ONNX Runtime computes in one operator with what is before them.

A GELU ends with a product by a half (Hendrycks and Gimpel 2016), a layer normalization with one
by its scale and a sum with its shift (Ba et al. 2016), one by the root mean square with a product
(Zhang and Sennrich 2019). Where exporters write these in pieces, ONNX Runtime puts the pieces
together again when it loads the model, but only whole ones: a piece that is folded into the layer
behind it costs more than it saves. It does not so with a GELU by tanh that ends with the half, nor
with a norm by Reciprocal (CPU provider), so that their last pieces may go.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx_graphsurgeon as gs

    from onnxcomp_passes.simplify.affine import Affine, Place


def ends_fusion(place: Place, found: Affine) -> bool:
    """Whether a scale or a shift is the last piece of a GELU or of a normalization.

    Args:
        place: The scope of the operator.
        found: The scale or the shift.
    """
    before = place.only_maker(found.source)
    if before is None:
        return False
    if found.node.op == "Mul":
        return _is_gated(before) or _is_normalized(before)
    is_scaled = found.node.op == "Add" and before.op == "Mul"
    return is_scaled and any(_is_normalized(each) for each in _makers(before))


def _is_gated(node: gs.Node) -> bool:
    """Whether a node gives x (1 + erf(...))."""
    sums = [each for each in _makers(node) if each.op == "Add"]
    makers = [maker.op for each in sums for maker in _makers(each)]
    return node.op == "Mul" and "Erf" in makers


def _is_normalized(node: gs.Node) -> bool:
    """Whether a node gives x / sqrt(...)."""
    if node.op == "Div":
        return any(each.op == "Sqrt" for each in node.inputs[1].inputs)
    inverses = [each for each in _makers(node) if each.op == "Div"]
    return node.op == "Mul" and any(
        maker.op == "Sqrt" for each in inverses for maker in _makers(each)
    )


def _makers(node: gs.Node) -> list[gs.Node]:
    return [maker for tensor in node.inputs for maker in tensor.inputs]
