"""How weights become codes: their grids, and the stores that hold them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from onnxcomp.stores import AffineStore, Codebook, leave_out_zeros, store_codes
from onnxcomp_passes.quantize.forms import CODEBOOKS, WEIGHT_TYPES, Form
from onnxcomp_passes.quantize.weight_grids import WeightGrid, block_grid, channel_grid

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from onnxcomp.graph import Weight
    from onnxcomp.stores import Store
    from onnxcomp_passes.quantize.forms import WeightType


@dataclass(frozen=True)
class Coding:
    """How the weights of a model are coded.

    Args:
        name: The type of weights whose layers compute with floats, by name.
        float8: That of weights whose layers compute with floats of 8 bits.
        largest_code: Of those whose layers compute with integers, which are int8.
        block_size: Inputs of a block, for layers that multiply blocks; 0: a scale a channel.
        power_of_two: Whether scales are powers of two.
    """

    name: str
    float8: str
    largest_code: int
    block_size: int
    power_of_two: bool

    @property
    def kind(self) -> WeightType:
        """The type of weights whose layers compute with floats."""
        return WEIGHT_TYPES[self.name]

    def grid(self, weight: Weight, values: NDArray[Any], form: Form) -> WeightGrid:
        """Return the grid of a weight."""
        kind = self._kind(form)
        if form is Form.BLOCKS:
            return block_grid(
                values,
                self.block_size,
                kind.most,
                has_zero_point=bool(kind.folded),
                power_of_two=self.power_of_two,
            )
        return channel_grid(
            values,
            weight.output_axis,
            kind.most,
            has_zero=kind.has_zero,
            power_of_two=self.power_of_two,
            floats=kind.floats,
        )

    def store(self, weight: Weight, form: Form, grid: WeightGrid, codes: NDArray[Any]) -> Store:
        """Return the store of a weight's codes."""
        kind = self._kind(form)
        if form is Form.FOLDED and kind.most < CODEBOOKS:
            return _in_codebook(weight, grid, codes)
        is_dequantized = form in {Form.INTEGER, Form.FLOAT8, Form.BLOCKS}
        # ONNX Runtime finds no integer kernel for a Gemm whose weight does not name its zero.
        has_zero_point = form is Form.INTEGER and "Gemm" in weight.op_types
        zero_point = np.zeros(grid.scale.shape, kind.dtype) if has_zero_point else None
        store = AffineStore(
            weight.shape,
            weight.dtype,
            grid.stored(codes).astype(kind.dtype),
            weight.opset,
            grid.scale,
            zero_point=zero_point if grid.below is None else grid.below.astype(kind.dtype),
            axis=grid.axis,
            block_size=grid.block_size,
            is_dequantized=is_dequantized,
        )
        return leave_out_zeros(store) if form is Form.FOLDED else store

    def shrinks(self, weight: Weight, form: Form) -> bool:
        """Whether a weight takes fewer bytes in a form whose layers compute with codes."""
        scale = np.ones(weight.shape[weight.output_axis], np.float32)
        grid = WeightGrid(scale, weight.output_axis, self.largest_code)
        store = self.store(weight, form, grid, np.zeros(weight.shape, np.int32))
        return store.added_bytes(()) < weight.tensor.nbytes

    def described(self, form: Form) -> str:
        """Say for a verdict what is done."""
        name = "int8" if form in {Form.INTEGER, Form.DYNAMIC} else self.name
        if form is Form.FLOAT8:
            name = self.float8
        if form is Form.FOLDED:
            name = self.kind.folded or name
        return f"{name}, {form.value}"

    def _kind(self, form: Form) -> WeightType:
        if form in {Form.INTEGER, Form.DYNAMIC}:
            return replace(WEIGHT_TYPES["int8"], most=self.largest_code)
        if form is Form.FLOAT8:
            return WEIGHT_TYPES[self.float8]
        if form is Form.FOLDED and self.kind.folded:
            return WEIGHT_TYPES[self.kind.folded]
        return self.kind


def _in_codebook(weight: Weight, grid: WeightGrid, codes: NDArray[np.int32]) -> Store:
    """Store few codes as those of a codebook, which every opset has and which packs any number."""
    levels = np.arange(-grid.most, grid.most + 1)
    levels = levels if grid.has_zero else levels[levels != 0]
    moved = np.moveaxis(codes, grid.axis, 0).reshape(-1)
    return store_codes(
        np.searchsorted(levels, moved).astype(np.uint8),
        Codebook(levels.astype(np.float32)[:, None]),
        shape=weight.shape,
        dtype=weight.dtype,
        opset=weight.opset,
        axis=grid.axis,
        scale=grid.scale.reshape([-1, *[1] * (len(weight.shape) - 1)]),
    )
