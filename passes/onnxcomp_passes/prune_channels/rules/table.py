"""The table of rules, by operator of the standard domain."""

from __future__ import annotations

from typing import TYPE_CHECKING

from onnxcomp_passes.prune_channels.rules import (
    arranging,
    convolutions,
    elementwise,
    normalisations,
    products,
    quantization,
    recurrences,
    reductions,
    reshaping,
    selecting,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from onnxcomp_passes.prune_channels.operators import Operator

RULES: dict[str, Callable[[Operator], None]] = {
    **arranging.RULES,
    **convolutions.RULES,
    **elementwise.RULES,
    **normalisations.RULES,
    **products.RULES,
    **quantization.RULES,
    **recurrences.RULES,
    **reductions.RULES,
    **reshaping.RULES,
    **selecting.RULES,
}
