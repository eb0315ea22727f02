"""What becomes of one weight that is pruned: zeros by magnitude, or for what its layer gets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from onnxcomp.layerwise import Curve, Method
from onnxcomp.stores import AffineStore, SparseStore, leave_out_zeros
from onnxcomp_passes.prune.masks import matrix_form, sparsity_of
from onnxcomp_passes.prune.repairing import Aim, Criterion, pruned_weights
from onnxcomp_passes.prune.scoring import magnitude_scores
from onnxcomp_passes.prune.sensing import PROBES, SHARES, sensed

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from onnxcomp.layerwise.method import Tables
    from onnxcomp.recovery import Problem
    from onnxcomp.statistics import InputStatistics, Layer
    from onnxcomp.stores import Store
    from onnxcomp_passes.prune.masks import Pattern

    Floats = NDArray[np.float64]

WORTHWHILE = 0.9
"""The largest share of its bytes that a weight may take afterwards; else it stays as it is."""


@dataclass(frozen=True, eq=False)
class Pruning(Method[float, "NDArray[Any]"]):
    """Makes weights zero; what is made of one are its values.

    Args:
        pattern: Which become zero together.
        criterion: By what it is chosen which, where there is data.
        steps: Steps in which each layer is pruned, with a fit of what is left after each.
        counts_bytes: Whether curves are of bytes; if not, of elements that are left.
    """

    choices: ClassVar[Sequence[float]] = SHARES
    probed: ClassVar[Sequence[int]] = [SHARES.index(share) for share in PROBES]

    pattern: Pattern
    criterion: Criterion
    steps: int
    counts_bytes: bool = False

    def plain(
        self, layer: Layer, values: NDArray[Any], choice: float | None
    ) -> tuple[NDArray[Any], str]:
        """Return a weight of which a share, the smallest elements, is zero."""
        assert choice is not None  # noqa: S101 - every weight has a share of its own
        form = matrix_form(layer)
        scores = magnitude_scores(form.to_matrices(values.astype(np.float32, copy=False)))
        kept = self.pattern.keep(scores, choice)
        pruned = np.where(form.to_tensor(kept), values, values.dtype.type(0))
        return pruned, f"{sparsity_of(pruned):.1%} zeros by magnitude"

    def candidates(
        self,
        layer: Layer,
        values: NDArray[Any],
        problem: Problem,
        choice: float | None,
        how: str,
    ) -> Iterator[tuple[tuple[NDArray[Any], str], Floats]]:
        """Yield weights with zeros that fit what their layer gets."""
        del how, values
        assert choice is not None  # noqa: S101 - every weight has a share of its own
        aim = Aim(self.criterion, self.pattern, choice, self.steps)
        for found, done in pruned_weights(layer, problem, aim):
            zeros = f"{sparsity_of(found):.1%} zeros by {done}"
            yield (layer.form.to_tensor(found), zeros), found

    def curve(self, layer: Layer, inputs: InputStatistics, *, has_probes: bool) -> Curve:
        """Return what a weight takes and loses by each share, after error feedback."""
        shares = [SHARES[index] for index in self.probed] if has_probes else []
        errors, probes = sensed(layer, inputs, self.pattern, shares)
        values, size = layer.weight.load(), layer.weight.size
        if self.counts_bytes:
            nbytes = [self._tried(layer, values, share)[0] for share in SHARES]
        else:
            nbytes = [round(size * (1 - share)) for share in SHARES]
        at = [errors[index] for index in self.probed]
        return Curve(nbytes, errors, list(zip(at, probes, strict=False)))

    def finished(
        self, layer: Layer, problem: Problem, made: NDArray[Any], shift: Floats
    ) -> tuple[NDArray[Any], Floats, str]:
        """Give each output the mean and the deviation that it had."""
        if not problem.shifts:
            return made, shift, ""
        found, shift = problem.corrected(layer.form.to_matrices(made))
        return layer.form.to_tensor(found), shift, ", deviations corrected"

    def store(
        self, layer: Layer, made: NDArray[Any], values: NDArray[Any], present: Tables
    ) -> Store:
        """Return the smallest store of a weight without its zeros."""
        weight = layer.weight
        pruned = made.astype(values.dtype, copy=False)
        plain = AffineStore(weight.shape, weight.dtype, pruned, weight.opset, is_dequantized=False)
        store = leave_out_zeros(plain, present)
        if isinstance(store, SparseStore):
            return store
        before = weight.tensor.nbytes
        raise ValueError(_hardly(made, before, before))

    def why_not(self, made: NDArray[Any], before: int, after: int) -> str | None:
        """Return why zeros are not worth the bytes that say where they are; None if they are."""
        return None if after <= WORTHWHILE * before else _hardly(made, before, after)


def _hardly(made: NDArray[Any], before: int, after: int) -> str:
    zeros = f"{sparsity_of(made):.0%} zeros"
    return f"would hardly be smaller for {zeros} ({before} bytes, {after} stored)"
