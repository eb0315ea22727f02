"""Options that contradict each other, refused before anything is done."""

from __future__ import annotations

from typing import TYPE_CHECKING

from onnxcomp.errors import OptionError
from onnxcomp_passes.quantize.forms import FLOAT8
from onnxcomp_passes.quantize.profiles import PROFILES

if TYPE_CHECKING:
    from onnxcomp_passes.quantize.quantize import Quantize

BLOCK_TYPES = {"int8", "int4", "uint4", "int2"}
"""Of weights that MatMulNBits multiplies."""

LEAST_BLOCK = 16
"""Inputs of a block, of which MatMulNBits takes powers of two."""


def check_combination(options: Quantize) -> None:
    """Refuse options that cannot be stored, or that their profile does not compute.

    Raises:
        OptionError: They contradict each other.
    """
    _check_blocks(options)
    if options.calibrate == 0 and options.mode in {"auto", "static"}:
        raise OptionError(
            f"{options.name}: calibrate = 0 needs mode dynamic or weights; {options.mode} needs "
            "samples"
        )
    if options.io_dtype != "float" and options.mode != "static":
        raise OptionError(
            f"{options.name}: io_dtype = {options.io_dtype!r} needs mode static, which finds "
            f"ranges, not {options.mode}"
        )
    profile = "cpu" if options.profile == "auto" else options.profile
    kind, known = options.activation_type, PROFILES[profile].types
    if kind not in {"auto", *known}:
        others = [name for name, each in PROFILES.items() if kind in each.types]
        raise OptionError(
            f"{options.name}: activation_type = {kind!r} is nothing that profile {profile} "
            f"computes faster; give {' or '.join(known)}, or profile {' or '.join(others)}"
        )
    if kind in FLOAT8 and options.ranges == "entropy":
        raise OptionError(
            f"{options.name}: ranges = 'entropy' is of codes that lie evenly, not of {kind}; "
            "give output, mse, percentile or minmax"
        )


def _check_blocks(options: Quantize) -> None:
    size, kind = options.block_size, options.weight_type
    if size and kind not in BLOCK_TYPES:
        raise OptionError(
            f"{options.name}: block_size = {size} needs weight_type int8, int4, uint4 or int2, "
            f"not {kind}"
        )
    if size and (size < LEAST_BLOCK or size & (size - 1)):
        raise OptionError(f"{options.name}: block_size = {size}: a power of two from 16 to 256")
    if kind == "uint4" and not size:
        raise OptionError(
            f"{options.name}: block_size = 0: weight_type uint4 is of blocks; give block_size, or "
            "weight_type int4"
        )
