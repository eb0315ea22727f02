"""The pass: weights and activations as integers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

import numpy as np
from pydantic import Field

from onnxcomp.errors import OptionError
from onnxcomp.graph import copy_model, raise_opset
from onnxcomp.pipeline import Pass, Stage, skip
from onnxcomp.statistics import layers
from passes.quantize.coding import Coder
from passes.quantize.inserting import insert
from passes.quantize.profiles import PROFILES
from passes.quantize.searching import Search, find_grids
from passes.quantize.selecting import exact_enough, full_plan

if TYPE_CHECKING:
    from onnxcomp.graph import Model
    from onnxcomp.pipeline import Context
    from onnxcomp.verdicts import Verdict


class Quantize(Pass):
    """Quantize."""

    name: ClassVar[str] = "quantize"
    stage: ClassVar[Stage] = Stage.CODE

    mode: Annotated[Literal["static", "weights"], Field(description="x")] = "static"
    ranges: Annotated[Literal["output", "mse", "entropy", "percentile", "minmax"], Field(description="x")] = "output"
    least_snr: Annotated[float, Field(description="dB")] = 25.0
    sequential: Annotated[bool, Field(description="x")] = False
    min_elements: Annotated[int, Field(ge=1, description="Leave tensors with fewer elements alone.")] = 256

    def apply(self, model: Model, context: Context) -> list[Verdict]:
        profile = PROFILES["cpu"]
        raise_opset(model, 13)
        original = copy_model(model)
        weights, skipped = self.candidates(model)
        skipped += [skip(each, f"is tiny ({each.size} elements)") for each in weights if each.size < self.min_elements]
        weights = [each for each in weights if each.size >= self.min_elements]
        chosen = {id(each.tensor) for each in weights}
        placement = None
        if self.mode == "static":
            if context.samples is None:
                raise OptionError("quantize: static needs data")
            plan = full_plan(model, chosen, profile)
            search = Search(self.ranges, np.dtype(profile.activations))
            found = find_grids(model, plan, search, context)
            plan = exact_enough(model, plan, found, self.least_snr)
            placement = plan.place(model)
            grids = {id(each.rounded.tensor): each.grid for each in found}
            insert(placement, [grids[id(each.tensor)] for each in placement.tensors])
        keys = placement.keys if placement else frozenset()
        coder = Coder(keys, profile, False, self.sequential)
        verdicts = coder.run(model, original, weights, context)
        return [*skipped, *verdicts.values()]
