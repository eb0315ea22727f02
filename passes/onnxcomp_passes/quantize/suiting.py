"""Which weights are worth it, and which layers may take a form that is not for all."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from onnxcomp_passes.quantize.dynamic import is_dynamic

if TYPE_CHECKING:
    from onnxcomp.graph import Weight
    from onnxcomp.statistics import Layer
    from onnxcomp_passes.quantize.forms import WeightType
    from onnxcomp_passes.quantize.profiles import Profile

LEAST_GAIN = 1.5
"""Bytes of a weight over its elements from which 8 bits, with scales, are surely fewer."""


def why_unsuited(weight: Weight, least_elements: int, *, is_computed: bool) -> str | None:
    """Return why a weight is left alone; None if it is not.

    Args:
        weight: The weight.
        least_elements: Fewer are not worth it.
        is_computed: Whether weights are to be computed with, and not only stored.
    """
    if weight.size < least_elements:
        return f"is tiny ({weight.size} elements)"
    if is_computed and weight.tensor.nbytes < LEAST_GAIN * weight.size:
        return "is stored in about 8 bits or less; expand it first"
    if not np.isfinite(weight.load().astype(np.float32)).all():
        return "holds NaN or infinity"
    return None


def suits_dynamic(layer: Layer, profile: Profile) -> bool:
    """Whether a provider finds the ranges of a layer's activations as it runs."""
    return bool(layer.uses) and all(
        use.node.op in profile.dynamic and is_dynamic(use, layer.weight.dtype)
        for use in layer.uses
    )


def suits_blocks(layer: Layer, kind: WeightType, profile: Profile) -> bool:
    """Whether a provider multiplies a layer's weight in blocks as they are.

    Of other types than float32 ONNX Runtime decodes the whole weight at every run.
    """
    is_product = (
        bool(layer.uses)
        and layer.weight.dtype == np.float32
        and all(use.node.op == "MatMul" and use.place == 1 for use in layer.uses)
    )
    return is_product and profile.blocks and layer.weight.shape[-1] % kind.divisor == 0
