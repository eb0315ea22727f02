"""What becomes of a weight that is quantized: the nearest codes, or better ones for its layer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from onnxcomp.layerwise import Method
from onnxcomp.recovery import Feedback, support_of
from onnxcomp.stores import FOLDING_LIMIT, TOO_LARGE, AffineStore, leave_out_zeros
from onnxcomp_passes.quantize.forms import Form
from onnxcomp_passes.quantize.weight_grids import FINE, WeightGrid

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import numpy as np
    from numpy.typing import NDArray

    from onnxcomp.layerwise.method import Tables
    from onnxcomp.recovery import Problem
    from onnxcomp.statistics import Layer
    from onnxcomp.stores import Store
    from onnxcomp_passes.quantize.coding import Coding

Rounded = tuple["WeightGrid | None", "NDArray[Any]"]
"""A grid and codes on it, of the weight's shape; shorter floats where there is no grid."""

WIDEST, WIDEST_FINE = 8192, 2304
"""The most inputs of a layer that is repaired: below 8 bits, and from 8 bits on. The more inputs,
the more cancels out, and the more memory is needed."""


@dataclass(frozen=True, eq=False)
class Rounding(Method[None, Rounded]):
    """Rounds weights to grids.

    Args:
        coding: How.
        forms: The form of each layer, by its key; others are folded.
    """

    coding: Coding
    forms: Mapping[str, Form]

    def form(self, key: str) -> Form:
        """Return the form of a layer's weight."""
        return self.forms.get(key, Form.FOLDED)

    def plain(self, layer: Layer, values: NDArray[Any], choice: None) -> tuple[Rounded, str]:
        """Return the nearest codes."""
        del choice
        weight, form = layer.weight, self.form(layer.key)
        if form is Form.FOLDED and weight.size * weight.dtype.itemsize > FOLDING_LIMIT:
            raise ValueError(TOO_LARGE)
        how = self.coding.described(form)
        if self._is_short(form):
            return (None, values.astype(self.coding.kind.dtype)), how
        grid = self.coding.grid(weight, values, form)
        return (grid, grid.codes(values)), how

    def candidates(
        self, layer: Layer, values: NDArray[Any], problem: Problem, choice: None, how: str
    ) -> Iterator[tuple[tuple[Rounded, str], NDArray[np.floating]]]:
        """Yield codes for the columns that a layer gets.

        These are the nearest codes, error feedback from the weight itself, and error feedback
        from the weights that are best for what the layers before now give.
        """
        del choice
        for grid, codes, done in self._candidates(layer, values, problem):
            found = layer.form.to_matrices(grid.values(codes))
            yield ((grid, codes), f"{how}; {done}"), found

    def _candidates(
        self, layer: Layer, values: NDArray[Any], problem: Problem
    ) -> Iterator[tuple[WeightGrid, NDArray[np.int32], str]]:
        form = self.form(layer.key)
        grid = self.coding.grid(layer.weight, values, form)
        yield grid, grid.codes(values), "nearest codes"
        feedbacks = [Feedback(damped) for damped in problem.damped]
        support = support_of(problem.weights)
        codes = grid.fed_back(problem.weights, layer.form, feedbacks, support)
        if codes is None:
            return
        yield grid, codes, "error feedback"
        if problem.is_paired:
            target = problem.target(support)
            refitted = layer.form.to_tensor(target).astype(values.dtype)
            grid = self.coding.grid(layer.weight, refitted, form)
            codes = grid.fed_back(target, layer.form, feedbacks, support)
            if codes is not None:
                yield grid, codes, "error feedback after refit"

    def store(self, layer: Layer, made: Rounded, values: NDArray[Any], present: Tables) -> Store:
        """Return codes, or shorter floats, as they are stored."""
        del values, present
        weight, (grid, codes) = layer.weight, made
        if grid is None:
            return leave_out_zeros(AffineStore(weight.shape, weight.dtype, codes, weight.opset))
        return self.coding.store(weight, self.form(layer.key), grid, codes)

    def why_plain(self, layer: Layer) -> str | None:
        """Return why a weight is not repaired: it is on no grid, or too wide to be worth it."""
        if self._is_short(self.form(layer.key)):
            return ""
        if not layer.uses:
            return None
        width, widest = layer.form.matrices[2], WIDEST
        if self.coding.kind.most >= FINE:
            widest = WIDEST_FINE
        return f"its layer has {width} inputs, more than {widest}" if width > widest else None

    def _is_short(self, form: Form) -> bool:
        """Whether weights are stored as shorter floats, which nothing repairs."""
        return self.coding.kind.most == 0 and form is Form.FOLDED
