"""Which layers may take a form that is not for all: dynamic activations, or blocks."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from passes.quantize.dynamic import is_dynamic

if TYPE_CHECKING:
    from onnxcomp.statistics import Layer
    from passes.quantize.forms import WeightType
    from passes.quantize.profiles import Profile


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
