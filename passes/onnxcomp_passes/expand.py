"""Stores decoded back to plain weights, for engines that do not fold constants."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from onnxcomp.graph import DecodedValues, store_of, weights
from onnxcomp.pipeline import Pass, Stage, change, skip

if TYPE_CHECKING:
    from onnxcomp.graph import Model, Weight
    from onnxcomp.pipeline import Context
    from onnxcomp.verdicts import Verdict


class Expand(Pass):
    """Decode every store back to a plain float initializer, exactly.

    ONNX Runtime decodes stores once, when it loads a session. An engine that does not, or a
    session without graph optimisation, decodes them on every run; give it the expanded model.
    """

    name: ClassVar[str] = "expand"
    stage: ClassVar[Stage] = Stage.CORRECT

    @property
    def saves_bytes(self) -> bool:
        """Whether the file shrinks; it grows."""
        return False

    def apply(self, model: Model, context: Context) -> list[Verdict]:
        """Replace every selected store by what it decodes to."""
        del context
        return [self._expand(weight) for weight in weights(model)]

    def _expand(self, weight: Weight) -> Verdict:
        store = store_of(weight.tensor)
        if store is None:
            return skip(weight, "is a plain tensor")
        if not self.selects(weight.name):
            return skip(weight, "was not selected by include and exclude")
        before = weight.tensor.nbytes
        weight.tensor.values = DecodedValues(store)
        return change(weight, "decoded", before=before, after=weight.tensor.nbytes, error=0.0)
