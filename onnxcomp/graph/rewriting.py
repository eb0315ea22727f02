"""A model through another library's hands, which sees its operators and not its weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import onnx

from onnxcomp.errors import ModelError
from onnxcomp.graph.copying import copy_model
from onnxcomp.graph.declarations import FIRST_IR_WITHOUT_LISTED_INITIALIZERS, hide_initializers
from onnxcomp.graph.messages import copy_without
from onnxcomp.graph.model import Graph, Variable
from onnxcomp.graph.placeholders import SetAside
from onnxcomp.graph.reading import read_model
from onnxcomp.graph.values import Constant, SparseTensorValues, StoreValues
from onnxcomp.graph.writing import write_model

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from onnxcomp.graph.model import Model

Load = Callable[[str], "NDArray[Any]"]
"""Loads the values of a tensor without data, given its external location."""

Rewrite = Callable[[onnx.ModelProto, Load], onnx.ModelProto]
"""Rewrites a message; may change it or return another."""

PREFIX = "onnxcomp.hidden."


def rewritten(model: Model, rewrite: Rewrite, may_fold: Callable[[Constant], bool]) -> Model:
    """Return what another library makes of a model.

    Its message holds no values but words; whatever comes back holds what it held. Weights
    with a store, sparse ones, those that a caller may override, and those that ``may_fold``
    declines are inputs in the message, so that nothing can be folded into them. Functions are not
    shown, and neither they nor anything that describes the model can change: metadata, doc
    strings, opset and IR versions, inputs and outputs.

    Args:
        model: The model; not changed.
        rewrite: What the other library does.
        may_fold: Whether a constant may be replaced by what is computed of it.

    Raises:
        ModelError: A constant that must not be folded is given out as it is, or a constant took
            the place of an output that is declared to be of any size.
    """
    copied = copy_model(model)
    functions, copied.local_functions = copied.local_functions, []
    hidden = _hide(copied, may_fold)
    weights = SetAside()
    weights.take(copied, 0)
    for scope in copied.scopes():
        for constant in scope.constants:
            # Other libraries fold initializers more readily than Constant nodes.
            constant.node = None
    proto = rewrite(_message(copied), weights.load)
    result = read_model(proto, weights)
    weights.put_back(result)
    _describe(result, model)
    _uncover(result, hidden)
    result.local_functions = functions
    result.data_paths = model.data_paths
    result.folder = model.folder
    return result


def _hide(model: Model, may_fold: Callable[[Constant], bool]) -> dict[str, Constant]:
    """Make inputs of what must not be folded, and return it by its new name."""
    outputs = {id(each) for scope in model.scopes() for each in scope.outputs}
    hidden: dict[str, Constant] = {}
    for scope in list(model.scopes()):
        for constant in list(scope.constants):
            is_open = not isinstance(constant.held, StoreValues | SparseTensorValues)
            if is_open and may_fold(constant) and not constant.may_be_overridden:
                continue
            if id(constant) in outputs:
                raise ModelError(
                    f"{constant.name!r} is an output, and nothing may be folded of it"
                )
            name = f"{PREFIX}{len(hidden)}"
            hidden[name] = constant
            stand_in = Variable(name, constant.dtype, list(constant.shape))
            _replace(constant, stand_in)
            model.inputs.append(stand_in)
            scope.constants = [each for each in scope.constants if each is not constant]
    return hidden


def _replace(old: Any, new: Any) -> None:
    for reader in list(old.outputs):
        reader.inputs = [new if each is old else each for each in reader.inputs]


def _message(model: Model) -> onnx.ModelProto:
    """Write a model so that its initializers are no inputs, whatever its IR version."""
    proto = write_model(model)
    proto.ir_version = max(proto.ir_version, FIRST_IR_WITHOUT_LISTED_INITIALIZERS)
    hide_initializers(proto.graph)
    return proto


def _describe(result: Model, model: Model) -> None:
    """Let a model say of itself what the original said, and declare no more tensors than that."""
    declared = {
        info.name
        for scope in model.scopes()
        for info in scope.__dict__.get("source", onnx.GraphProto()).value_info
    }
    for scope in result.scopes():
        infos = [info for info in scope.source.value_info if info.name in declared]
        if scope is result:
            scope.source = copy_without(model.source, {"value_info"})
        else:
            scope.source = copy_without(scope.source, {"value_info"})
        scope.source.value_info.extend(infos)
    result.header = onnx.ModelProto()
    result.header.CopyFrom(model.header)
    result.import_domains = result.header.opset_import
    result.opset, result.ir_version = model.opset, model.ir_version
    result.name, result.doc_string = model.name, model.doc_string
    for tensors, originals in ((result.inputs, model.inputs), (result.outputs, model.outputs)):
        for tensor, original in zip(tensors, originals, strict=False):
            if isinstance(tensor, Variable):
                tensor.dtype, tensor.shape = original.dtype, original.shape
                tensor.source = getattr(original, "source", None)
            elif (tensor.dtype, list(tensor.shape or [])) != (
                original.dtype,
                list(original.shape or []),
            ):
                raise ModelError(f"output {original.name!r} would be declared otherwise")


def _uncover(result: Model, hidden: dict[str, Constant]) -> None:
    """Make constants of the inputs that stand for some, in the scope that reads them."""
    for stand_in in [each for each in result.inputs if each.name in hidden]:
        constant = hidden[stand_in.name]
        result.inputs.remove(stand_in)
        _replace(stand_in, constant)
        home = _home(result, constant)
        is_input = any(info.name == constant.name for info in result.source.input)
        if is_input and not constant.outputs:
            result.unread |= {constant.name}
        if is_input or constant.outputs:
            constant.name = _free_name(result, home, constant)
            home.constants.append(constant)


def _home(model: Model, constant: Constant) -> Graph:
    readers = {id(node) for node in constant.outputs}
    homes = [scope for scope in model.scopes() if any(id(node) in readers for node in scope.nodes)]
    return homes[0] if len(homes) == 1 else model


def _free_name(model: Model, home: Graph, constant: Constant) -> str:
    """Return the constant's name, longer if something that is seen from its scope has it."""
    within = {id(scope) for scope in home.scopes()}
    around = (
        scope
        for scope in model.scopes()
        if id(scope) in within or any(each is home for each in scope.scopes())
    )
    taken = {
        tensor.name
        for scope in around
        for tensors in ([*scope.inputs, *scope.constants], *(each.outputs for each in scope.nodes))
        for tensor in tensors
    }
    name = str(constant.name)
    while name in taken:
        name += "_"
    return name
