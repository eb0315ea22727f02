"""The pass: weights and activations as integers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from onnxcomp.errors import OptionError
from onnxcomp.graph import copy_model, raise_opset
from onnxcomp.pipeline import Pass, Stage, skip
from onnxcomp.statistics import layers
from passes.quantize.biases import round_biases
from passes.quantize.coding import Coder, Coding
from passes.quantize.dynamic import is_dynamic, rewrite_dynamic
from passes.quantize.forms import WEIGHT_TYPES, Form
from passes.quantize.inserting import insert
from passes.quantize.profiles import PROFILES
from passes.quantize.searching import Search, find_grids
from passes.quantize.selecting import exact_enough, full_plan
from passes.quantize.shielding import shield
from passes.quantize.smoothing import smooth

if TYPE_CHECKING:
    from onnxcomp.graph import Model, Weight
    from onnxcomp.pipeline import Context
    from onnxcomp.verdicts import Verdict


class Quantize(Pass):
    """Quantize."""

    name: ClassVar[str] = "quantize"
    stage: ClassVar[Stage] = Stage.CODE

    mode: Annotated[Literal["auto", "static", "dynamic", "weights"], Field(description="x")] = "auto"
    weight_type: Annotated[Literal["int8","int16","int4","int2","ternary","binary","float16"], Field(description="x")] = "int8"
    block_size: Annotated[int, Field(ge=0, description="x")] = 0
    ranges: Annotated[Literal["output", "mse", "entropy", "percentile", "minmax"], Field(description="x")] = "output"
    least_snr: Annotated[float, Field(description="dB")] = 25.0
    power_of_two: bool = False
    profile: Annotated[Literal["cpu", "openvino", "tensorrt", "generic"], Field(description="x")] = "cpu"
    sequential: Annotated[bool, Field(description="x")] = False
    min_elements: Annotated[int, Field(ge=1, description="Leave tensors with fewer elements alone.")] = 256

    def apply(self, model: Model, context: Context) -> list[Verdict]:
        profile = PROFILES[self.profile]
        raise_opset(model, WEIGHT_TYPES[self.weight_type].opset)
        original = copy_model(model)
        weights, skipped = self.candidates(model)
        skipped += [skip(each, f"is tiny ({each.size} elements)") for each in weights if each.size < self.min_elements]
        weights = [each for each in weights if each.size >= self.min_elements]
        chosen = {id(each.tensor) for each in weights}
        forms = {}
        if self.mode == "static":
            if context.samples is None:
                raise OptionError("quantize: static needs data")
            plan = full_plan(model, chosen, profile)
            search = Search(self.ranges, np.dtype(profile.activations), power_of_two=self.power_of_two)
            found = find_grids(model, plan, search, context)
            plan = exact_enough(model, plan, found, self.least_snr)
            placement = plan.place(model)
            known = {id(each.rounded.tensor): each for each in found}
            chosen_grids = [known[id(each.tensor)] for each in placement.tensors]
            for each in chosen_grids:
                if each.divisors is not None:
                    smooth(each.rounded, [layer for layer in each.readers if layer.key in placement.keys], each.divisors)
            original = copy_model(model)
            placement = plan.place(model)
            insert(placement, [each.grid for each in chosen_grids])
            shield(model, placement)
            forms = dict.fromkeys(placement.keys, Form.INTEGER)
        if self.mode == "dynamic":
            forms = {layer.key: Form.DYNAMIC for layer in layers(model) if id(layer.weight.tensor) in chosen and layer.uses and all(is_dynamic(use, layer.weight.dtype) and use.node.op in profile.dynamic for use in layer.uses)}
        coding = Coding(WEIGHT_TYPES[self.weight_type], self.weight_type, WEIGHT_TYPES["int8"], self.block_size, self.power_of_two)
        coder = Coder(coding, forms, self.sequential)
        verdicts = coder.run(model, original, weights, context)
        if self.mode == "static":
            round_biases(model, placement.keys, profile)
        if self.mode == "dynamic":
            rewrite_dynamic(model, set(forms))
        return [*skipped, *verdicts]
