"""Static quantization: activations on grids that calibration found."""

from __future__ import annotations

from typing import TYPE_CHECKING

from onnxcomp.runtime.dtypes import is_float
from onnxcomp_passes.quantize.inserting import insert
from onnxcomp_passes.quantize.rectifying import write_maxima
from onnxcomp_passes.quantize.searching import find_grids
from onnxcomp_passes.quantize.selecting import exact_enough, full_plan, without_worst
from onnxcomp_passes.quantize.shielding import shield
from onnxcomp_passes.quantize.smoothing import smooth

if TYPE_CHECKING:
    from collections.abc import Collection

    from onnxcomp.graph import Model
    from onnxcomp.pipeline import Context
    from onnxcomp_passes.quantize.placement import Placement
    from onnxcomp_passes.quantize.profiles import Profile
    from onnxcomp_passes.quantize.searching import Activation, Search


def find_placement(
    model: Model,
    chosen: Collection[int],
    profile: Profile,
    search: Search,
    context: Context,
    *,
    kept_float: int | None,
    least_snr: float,
) -> tuple[Placement, list[Activation]]:
    """Find which layers compute with integers, and a grid for all that they need rounded.

    Activations whose channels differ much are smoothed: the model then gives the same as before.

    Args:
        model: The model; only smoothing changes it.
        chosen: The weights that may be changed, by the identities of their constants.
        profile: What the provider does with integers.
        search: How grids are found.
        context: Samples, or statistics.
        kept_float: How many layers compute with floats, those that cost most; None for as many as
            ``least_snr`` needs.
        least_snr: Of the outputs, in dB.

    Returns:
        The placement, and what it rounds in its order.
    """
    plan = full_plan(model, chosen, profile)
    found = find_grids(model, plan, search, context)
    plan = plan.without(
        {key for each in found if not each.observed.count for key in each.rounded.keys}
    )
    if kept_float is None:
        plan = exact_enough(model, plan, found, least_snr)
    else:
        plan = without_worst(plan, found, kept_float)
    by_tensor = {id(each.rounded.tensor): each for each in found}
    placement = plan.place(model)
    kept = [by_tensor[id(each.tensor)] for each in placement.tensors]
    for each in kept:
        if each.divisors is not None:
            readers = [layer for layer in each.readers if layer.key in placement.keys]
            smooth(each.rounded, readers, each.divisors)
    return plan.place(model), kept


def round_activations(model: Model, placement: Placement, kept: Collection[Activation]) -> None:
    """Write QuantizeLinear and DequantizeLinear where a placement says so."""
    insert(placement, [each.grid for each in kept])
    # What is read as floats of 8 bits no float layer reads, and no integer kernel computes with.
    if not any(is_float(each.grid.dtype) for each in kept):
        shield(model, placement)
        write_maxima(model, placement)
