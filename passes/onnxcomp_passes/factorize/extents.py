"""How much each layer computes in one run of the model, observed."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import prod
from typing import TYPE_CHECKING, Any

from onnxcomp.graph import referring_bytes
from onnxcomp.graph.operators import CONVOLUTIONS
from onnxcomp.runtime import open_session, synthetic_samples
from onnxcomp.statistics import held_out_samples, walk
from onnxcomp_passes.factorize.pieces import Extent

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from onnxcomp.graph import Model
    from onnxcomp.pipeline import Context
    from onnxcomp.runtime import Samples
    from onnxcomp.statistics import Layer, Use
    from onnxcomp.statistics.streaming import Place, Sample

FIRST_SPATIAL = 2
"""The axes before are samples and channels."""


@dataclass(eq=False)
class ShapeWatch:
    """Watches the shapes of what one operator reads and gives.

    Args:
        use: The operator.

    Attributes:
        shapes: Those of the first sample that runs it; empty before.
    """

    use: Use
    shapes: list[tuple[int, ...]] = field(default_factory=list)

    def places(self, side: int) -> list[Place]:
        """Return what the operator reads and gives."""
        del side
        return [(tensor, self.use.scope) for tensor in self.use.activations]

    def take(self, sample: Sample, sides: Sequence[Sequence[NDArray[Any]]]) -> None:
        """Take in the shapes of a sample."""
        del sample
        if not self.shapes and all(array.size for array in sides[0]):
            self.shapes = [array.shape for array in sides[0]]

    @property
    def extent(self) -> Extent | None:
        """How much the operator computes; None where no sample runs it."""
        if not self.shapes:
            return None
        read, given = self.shapes[0], self.shapes[-1]
        if self.use.node.op in CONVOLUTIONS:
            return Extent(given[0], read[FIRST_SPATIAL:], given[FIRST_SPATIAL:])
        return Extent(prod(read) // self.use.form.matrices[2])


def observe_shapes(
    model: Model, layers: Sequence[Layer], context: Context
) -> dict[str, ShapeWatch]:
    """Observe the first operator of each layer on one sample, a made-up one if there is none.

    Returns:
        By the key of the layer.
    """
    watches = {layer.key: ShapeWatch(layer.uses[0]) for layer in layers if layer.uses}
    walk((model,), list(watches.values()), _one_sample(model, context))
    return watches


def _one_sample(model: Model, context: Context) -> Samples:
    if context.samples is not None:
        return held_out_samples(context.samples, 1)
    data, folder = referring_bytes(model)
    session = open_session(data, threads=1, label="the model", folder=folder)
    return synthetic_samples(session, 1, context.seed)
