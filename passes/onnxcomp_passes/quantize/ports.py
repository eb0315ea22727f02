"""Inputs and outputs of a model as integers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from onnxcomp.errors import OptionError
from onnxcomp.graph import Constant, Node, Variable, constant_of
from onnxcomp.runtime.coded import INTERFACE, PortCodes, write_codes
from onnxcomp.runtime.dtypes import is_float
from onnxcomp.statistics import Range, RangeWatch, walk
from onnxcomp_passes.quantize.grids import ActivationGrid
from onnxcomp_passes.quantize.placement import Rounded

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    import onnx_graphsurgeon as gs

    from onnxcomp.graph import Model
    from onnxcomp.pipeline import Context
    from onnxcomp_passes.quantize.searching import Activation, Search

    Grids = Mapping[str, ActivationGrid]

FLOAT32 = np.dtype(np.float32)
EIGHT_BITS = {np.dtype(np.uint8), np.dtype(np.int8)}


def port_grids(
    model: Model, kept: Iterable[Activation], search: Search, dtype: str, context: Context
) -> Grids:
    """Return a grid for each float32 input and output, by name: that of its layers if it has one.

    Args:
        model: The model, before anything is rounded.
        kept: What will be rounded.
        search: How grids are found.
        dtype: The codes' type, of 8 bits.
        context: Samples, or statistics.

    Raises:
        OptionError: There is no such port, or statistics do not know its range.
    """
    given = [each for each in model.inputs if not any(each is one for one in model.outputs)]
    ports = [each for each in (*given, *model.outputs) if _is_float(each)]
    if not ports:
        raise OptionError(f"quantize: io_dtype = {dtype!r}: no input or output is float32")
    ranges = _observed(model, ports, context)
    grids = {
        str(each.name): search.grid(ranges[each.name], Rounded(each, model, FLOAT32))
        for each in ports
    }
    for each in kept:
        is_input = any(each.rounded.tensor is one for one in model.inputs)
        if is_input and each.rounded.name in grids and each.grid.dtype in EIGHT_BITS:
            grids[each.rounded.name] = each.grid
    return {name: _of_type(each, np.dtype(dtype)) for name, each in grids.items()}


def _is_float(tensor: gs.Tensor) -> bool:
    return not isinstance(tensor, Constant) and tensor.dtype == FLOAT32


def _observed(model: Model, ports: list[gs.Tensor], context: Context) -> dict[str, Range]:
    if context.samples is not None:
        watches = [RangeWatch(each.name, (each, model), Range()) for each in ports]
        walk((model,), watches, context.samples)
        return {watch.name: watch.range for watch in watches}
    known = {} if context.statistics is None else context.statistics.ranges
    for each in ports:
        if each.name not in known:
            raise OptionError(
                f"quantize: io_dtype: the statistics have no range of {each.name!r}; give --data"
            )
    return {each.name: known[each.name] for each in ports}


def _of_type(grid: ActivationGrid, dtype: np.dtype[Any]) -> ActivationGrid:
    """Return the same values under codes of another type of as many bits."""
    moved = int(np.iinfo(dtype).min) - int(np.iinfo(grid.zero_point.dtype).min)
    return ActivationGrid(grid.scale, np.array(int(grid.zero_point) + moved, dtype))


def code_ports(model: Model, grids: Grids) -> None:
    """Make inputs and outputs integers, and write into the metadata what they stand for.

    Args:
        model: The model, with all else done.
        grids: Of ports, by name.
    """
    for tensor in [each for each in model.inputs if each.name in grids]:
        _code_input(model, tensor, grids[tensor.name])
    for tensor in [each for each in model.outputs if each.name in grids]:
        _code_output(model, tensor, grids[tensor.name])
    ports = {
        name: PortCodes(each.zero_point.dtype, float(each.scale), int(each.zero_point))
        for name, each in grids.items()
    }
    model.set_metadata(INTERFACE, write_codes(ports))


def _code_input(model: Model, tensor: gs.Tensor, grid: ActivationGrid) -> None:
    codes = _renamed(tensor, grid)
    model.inputs = [codes if each is tensor else each for each in model.inputs]
    for reader in list(tensor.outputs):
        if _rounds_to(reader, grid):
            _bypass(model, reader, codes)
    if tensor.outputs:
        step, zero = _constants(codes, grid)
        model.nodes.append(
            Node("DequantizeLinear", tensor.name, {}, [codes, step, zero], [tensor])
        )


def _code_output(model: Model, tensor: gs.Tensor, grid: ActivationGrid) -> None:
    codes = _renamed(tensor, grid)
    model.outputs = [codes if each is tensor else each for each in model.outputs]
    step, zero = _constants(codes, grid)
    model.nodes.append(Node("QuantizeLinear", codes.name, {}, [tensor, step, zero], [codes]))


def _renamed(tensor: gs.Tensor, grid: ActivationGrid) -> Variable:
    """Give a port's name to a new tensor of codes."""
    codes = Variable(str(tensor.name), grid.zero_point.dtype, tensor.shape)
    tensor.name = f"{tensor.name}.float"
    return codes


def _constants(codes: Variable, grid: ActivationGrid) -> tuple[Constant, Constant]:
    name = f"{codes.name}.port"
    return Constant(f"{name}.scale", grid.scale), Constant(f"{name}.zero_point", grid.zero_point)


def _rounds_to(node: gs.Node, grid: ActivationGrid) -> bool:
    dtype = node.outputs[0].dtype
    if node.op != "QuantizeLinear" or dtype is None or is_float(dtype):
        return False
    scale, zero = (constant_of(each).values for each in node.inputs[1:3])
    return bool(
        scale == grid.scale and zero.dtype == grid.zero_point.dtype and zero == grid.zero_point
    )


def _bypass(model: Model, node: gs.Node, codes: Variable) -> None:
    """Let those that read what a node gives read the codes that came instead."""
    (given,) = node.outputs
    for reader in list(given.outputs):
        reader.inputs = [codes if each is given else each for each in reader.inputs]
    node.inputs.clear()
    node.outputs.clear()
    model.nodes = [each for each in model.nodes if each is not node]
