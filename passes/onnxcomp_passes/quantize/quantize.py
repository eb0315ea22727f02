"""The pass: weights and activations as integers, or as floats of 8 bits."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from onnxcomp.errors import OptionError
from onnxcomp.graph import copy_model, raise_opset
from onnxcomp.layerwise import Coder
from onnxcomp.pipeline import Pass, Stage, skip
from onnxcomp.statistics import layers
from onnxcomp_passes.quantize.biases import make_room, round_biases
from onnxcomp_passes.quantize.choosing import apply_fastest
from onnxcomp_passes.quantize.coding import Coding
from onnxcomp_passes.quantize.combinations import check_combination
from onnxcomp_passes.quantize.dynamic import rewrite_dynamic
from onnxcomp_passes.quantize.forms import (
    FIRST_OPSET_OF_FLOAT8,
    FLOAT8,
    WEIGHT_TYPES,
    Float8,
    Form,
)
from onnxcomp_passes.quantize.halving import halve, replaced
from onnxcomp_passes.quantize.method import Rounding
from onnxcomp_passes.quantize.ports import EIGHT_BITS, code_ports, port_grids
from onnxcomp_passes.quantize.processors import detected_profile
from onnxcomp_passes.quantize.products import write_gemms
from onnxcomp_passes.quantize.profiles import PROFILES
from onnxcomp_passes.quantize.quantized import check_unquantized, dequantize
from onnxcomp_passes.quantize.searching import Search
from onnxcomp_passes.quantize.static import find_placement, round_activations
from onnxcomp_passes.quantize.suiting import suits_blocks, suits_dynamic, why_unsuited

if TYPE_CHECKING:
    from onnxcomp.graph import Model, Weight
    from onnxcomp.pipeline import Context
    from onnxcomp.statistics import Layer
    from onnxcomp.verdicts import Verdict
    from onnxcomp_passes.quantize.ports import Grids

OPSETS = {"static": 13, "dynamic": 11, "weights": 7}
"""Those that have scales of channels, DynamicQuantizeLinear, and a Mul that broadcasts."""

FIRST_OPSET_OF_OTHERS = 21
"""Of QuantizeLinear to 16 bits, and to a type that it names itself, as that of 8-bit floats."""

STEP = 0.5
"""The share of the progress that rounding activations takes."""


class Quantize(Pass):
    """Quantize: compute with integers where that is faster, and store weights as integers.

    ``static`` rounds activations to grids that calibration data finds; ``dynamic`` finds them at
    every run, for matrix products; ``weights`` only stores weights as integers; ``auto`` times
    the three on parts of the model, takes the fastest mix that keeps the outputs, and gives the
    passes that make it as its recipe. Layers whose rounding costs much, or that a provider does
    not compute faster, stay float and store their weights as integers.

    Methods: ranges by output error; SmoothQuant (Xiao et al., 2023); error feedback (GPTQ,
    Frantar et al., 2022); bias correction (Nagel et al., 2019).
    """

    name: ClassVar[str] = "quantize"
    stage: ClassVar[Stage] = Stage.CODE

    mode: Annotated[
        Literal["auto", "static", "dynamic", "weights"],
        Field(description="What is rounded; static needs data, auto without is weights."),
    ] = "auto"
    weight_type: Annotated[
        Literal["int8", "int16", "int4", "uint4", "int2", "ternary", "binary", "float16", Float8],
        Field(
            description="Type of weights whose layers compute with floats; uint4 has a zero point "
            "for each block, and is int4 where there are none."
        ),
    ] = "int8"
    rest: Annotated[
        Literal["float32", "float16"],
        Field(description="Type in which biases and other weights that stay float are stored."),
    ] = "float32"
    block_size: Annotated[
        int,
        Field(
            ge=0,
            le=256,
            description="Inputs that share a scale, for MatMul that multiplies int8, int4, uint4 "
            "or int2 blocks as they are (weights); 0 for a scale per output channel.",
        ),
    ] = 0
    activation_type: Annotated[
        Literal["auto", "uint8", "int8", "uint16", "int16", Float8],
        Field(
            description="Type of activations (static); auto for the one that the profile computes "
            "fastest: uint8 on processors. Signed ones are symmetric; 16 bits and float8 need "
            "opset 21. Float8 is for GPUs; weights are float8 then too."
        ),
    ] = "auto"
    io_dtype: Annotated[
        Literal["float", "uint8", "int8"],
        Field(
            description="Type of float32 inputs and outputs (static); what their integers stand "
            "for is in the report and the metadata."
        ),
    ] = "float"
    ranges: Annotated[
        Literal["output", "mse", "entropy", "percentile", "minmax"],
        Field(
            description="Ranges of activations: least error of the model's outputs; least mean "
            "squared error; least divergence; a percentile; or the extremes."
        ),
    ] = "output"
    percentile: Annotated[
        float, Field(gt=50, le=100, description="Per cent of the values in range (percentile).")
    ] = 99.99
    keep_float: Annotated[
        str,
        Field(
            pattern=r"^(auto|\d+)$",
            description="Layers left float, those that cost most: a number, or auto for as many "
            "as --least-snr needs.",
        ),
    ] = "auto"
    least_snr: Annotated[
        float,
        Field(
            allow_inf_nan=False,
            description="Signal-to-noise ratio of the outputs that rounding should keep, in dB; "
            "--min-snr raises it.",
        ),
    ] = 22.0
    profile: Annotated[
        Literal["auto", "cpu", "avx2", "openvino", "cuda", "tensorrt", "generic"],
        Field(
            description="Whose integer operators the graph is made for; avx2 is for processors "
            "without VNNI, whose sums of 16 bits must not overflow; auto for the one of these two "
            "that this processor is."
        ),
    ] = "auto"
    wide: Annotated[
        bool,
        Field(
            description="Compute depthwise convolutions and the products of gates, as in a hard "
            "swish, with integers too (static); auto tries both."
        ),
    ] = False
    power_of_two: Annotated[
        bool, Field(description="Only scales that are powers of two, as some accelerators need.")
    ] = False
    sequential: Annotated[
        bool, Field(description="Round layers one after the other, each for its input.")
    ] = False
    min_elements: Annotated[
        int, Field(ge=1, description="Leave tensors with fewer elements alone.")
    ] = 256
    calibrate: Annotated[
        int | None,
        Field(
            ge=0,
            description="Use so many of the samples at most, evenly spread; 0 rounds weights to "
            "the nearest, which takes no time (dynamic, weights). All if not given.",
        ),
    ] = None
    requantize: Annotated[
        bool, Field(description="Take quantization of others out of the model first.")
    ] = False

    def model_post_init(self, context: Any, /) -> None:
        """Refuse combinations that cannot be stored."""
        del context
        check_combination(self)

    @property
    def needs_data(self) -> bool:
        """Whether there must be data: to round activations, it has to be known what they are."""
        return self.mode == "static"

    def apply(self, model: Model, context: Context) -> list[Verdict]:
        """Quantize every weight that is worth it, and activations as the mode says."""
        if self.requantize:
            dequantize(model)
        check_unquantized(model, self, is_taken_out=self.requantize)
        if self.profile != "auto":
            return self._decided(model, context)
        found = self.model_copy(update={"profile": detected_profile()})
        if self.mode in {"static", "dynamic"}:
            context.decide((found,))
        return found._decided(model, context)  # noqa: SLF001 - its own, of the same class

    def _decided(self, model: Model, context: Context) -> list[Verdict]:
        if self.calibrate and context.samples is not None:
            context = replace(context, samples=context.samples.spread(self.calibrate))
        if self.mode == "auto":
            return apply_fastest(self, model, context)
        if self.calibrate == 0:
            context = replace(context, samples=None, statistics=None)
        profile = PROFILES[self.profile]
        raise_opset(model, self._least_opset(model))
        weights, skipped = self.suitable(model)
        types = self.weight_type, self.activation_type
        coding = Coding(*types, profile.largest_code, self.block_size, self.power_of_two)
        original, forms, ports = self._prepared(model, weights, coding, context)
        rest = context.part(STEP if self.mode == "static" else 0.0, 1)
        coder = Coder(Rounding(coding, forms), self.sequential)
        coder.run(model, original, weights, rest)
        of_form = {each: {key for key, one in forms.items() if one is each} for each in Form}
        round_biases(model, of_form[Form.INTEGER], profile)
        make_room(model, of_form[Form.FLOAT8])
        halved = halve(model, self.selects) if self.rest == "float16" else []
        rewrite_dynamic(model, of_form[Form.DYNAMIC])
        if ports:
            code_ports(model, ports)
        context.progress(1.0)
        return replaced([*skipped, *coder.verdicts(weights)], halved)

    def _least_opset(self, model: Model) -> int:
        """Return the opset that has the operators that the mode writes."""
        if self.mode == "weights" and any(
            each.weight.unsuitable is None and self.selects(each.name)
            for each in layers(model)
            if self._is_in_blocks(each)
        ):
            return WEIGHT_TYPES[self.weight_type].opset
        if self.mode == "static" and self._activations not in EIGHT_BITS:
            return FIRST_OPSET_OF_OTHERS
        return FIRST_OPSET_OF_FLOAT8 if self.weight_type in FLOAT8 else OPSETS[self.mode]

    def suitable(self, model: Model) -> tuple[list[Weight], list[Verdict]]:
        """Return the weights that are worth it, and verdicts on all others."""
        weights, skipped = self.candidates(model)
        reasons = [
            why_unsuited(each, self.min_elements, is_computed=self.mode != "weights")
            for each in weights
        ]
        pairs = list(zip(weights, reasons, strict=True))
        skipped += [skip(each, reason) for each, reason in pairs if reason is not None]
        return [each for each, reason in pairs if reason is None], skipped

    def _prepared(
        self, model: Model, weights: list[Weight], coding: Coding, context: Context
    ) -> tuple[Model, dict[str, Form], Grids]:
        """Round activations.

        Returns:
            A copy from before, the form of each layer's weight, and grids of inputs and outputs.
        """
        profile = PROFILES[self.profile]
        computed = {"static": self._static_form, "dynamic": Form.DYNAMIC}.get(self.mode)
        chosen = {
            id(each.tensor)
            for each in weights
            if computed is None or (each.dtype == np.float32 and coding.shrinks(each, computed))
        }
        own = [layer for layer in layers(model) if id(layer.weight.tensor) in chosen]
        if self.mode == "static":
            return self._static(model, chosen, context)
        original = copy_model(model)
        if self.mode == "dynamic":
            return (
                original,
                {each.key: Form.DYNAMIC for each in own if suits_dynamic(each, profile)},
                {},
            )
        return original, {each.key: Form.BLOCKS for each in own if self._is_in_blocks(each)}, {}

    def _static(
        self, model: Model, chosen: set[int], context: Context
    ) -> tuple[Model, dict[str, Form], Grids]:
        if context.samples is None and context.statistics is None:
            raise OptionError(
                f"{self.name}: mode = 'static' needs data; give --data, or use dynamic or weights"
            )
        profile = PROFILES[self.profile].computing(self.activation_type)
        profile = profile.widened if self.wide else profile
        search = Search(self.ranges, self._activations, self.percentile, self.power_of_two)
        placement, kept = find_placement(
            model,
            chosen,
            profile,
            search,
            context.part(0, STEP),
            kept_float=None if self.keep_float == "auto" else int(self.keep_float),
            least_snr=max(self.least_snr, context.min_snr or self.least_snr),
        )
        write_gemms(model, placement.keys)
        ports: Grids = {}
        if self.io_dtype != "float":
            eight = replace(search, dtype=np.dtype(np.uint8))
            ports = port_grids(model, kept, eight, self.io_dtype, context)
        original = copy_model(model)
        round_activations(model, placement, kept)
        return original, dict.fromkeys(placement.keys, self._static_form), ports

    @property
    def _activations(self) -> np.dtype[Any]:
        if self.activation_type in FLOAT8:
            return FLOAT8[self.activation_type]
        fastest_type = PROFILES[self.profile].activations[0]
        return np.dtype(fastest_type if self.activation_type == "auto" else self.activation_type)

    @property
    def _static_form(self) -> Form:
        """The form of weights that are multiplied with activations of known grids."""
        return Form.FLOAT8 if self.activation_type in FLOAT8 else Form.INTEGER

    def _is_in_blocks(self, layer: Layer) -> bool:
        kind, profile = WEIGHT_TYPES[self.weight_type], PROFILES[self.profile]
        return self.block_size > 0 and suits_blocks(layer, kind, profile)
