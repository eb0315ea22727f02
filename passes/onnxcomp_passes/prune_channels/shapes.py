"""The size of every axis, measured: the model is run once and gives out its tensors' shapes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import onnx

from onnxcomp.errors import DataError, ModelError
from onnxcomp.graph import Constant, bodies_of, expose, referring_bytes
from onnxcomp.runtime import open_session, synthetic_samples

if TYPE_CHECKING:
    from collections.abc import Sequence

    import onnx_graphsurgeon as gs
    from numpy.typing import NDArray

    from onnxcomp.graph import Model
    from onnxcomp.runtime import Feed

EXPOSED = "onnxcomp.shape."
"""Starts the name of an output."""

NOT_TENSORS = ("Sequence", "Optional", "Map")
"""What is in the name of an operator that gives something else than tensors."""

VALUES = "onnxcomp.value."
"""Starts the name of an output that gives values."""

Shapes = dict[int, tuple[int, ...]]


@dataclass(frozen=True, eq=False)
class Measured:
    """What a run of a model tells of the tensors of its main graph, by their identity.

    Args:
        shapes: A tensor of unknown shape is missing.
        values: Integers, flat, of the tensors that were asked for.
    """

    shapes: Shapes
    values: dict[int, NDArray[np.int64]]


def measure(model: Model, feed: Feed | None = None, wanted: Sequence[gs.Tensor] = ()) -> Measured:
    """Measure the shapes of tensors.

    Where the model does not run on what is fed, they are those that ONNX's shape inference knows.

    Args:
        model: The model.
        feed: One sample; made up where there is none.
        wanted: Tensors that depend on constants only, and whose values are wanted.
    """
    constants = [
        each for node in model.nodes for each in node.inputs if isinstance(each, Constant)
    ]
    shapes = {id(each): tuple(each.shape) for each in (*model.constants, *constants)}
    for nodes in (model.nodes, [node for node in model.nodes if _is_plain(node)]):
        tensors = [each for node in nodes for each in node.outputs if each.name]
        try:
            measured = _run(model, tensors, wanted, feed)
        except (ModelError, DataError):
            continue
        return replace(measured, shapes=shapes | measured.shapes)
    return Measured(shapes | _inferred(model), {})


def is_standard(node: gs.Node) -> bool:
    """Tell whether an operator is one of ONNX's own."""
    return node.domain in {None, "", "ai.onnx"}


def _is_plain(node: gs.Node) -> bool:
    gives_tensors = not any(word in node.op for word in NOT_TENSORS)
    return is_standard(node) and gives_tensors and not any(bodies_of(node))


def _run(
    model: Model, tensors: Sequence[gs.Tensor], wanted: Sequence[gs.Tensor], feed: Feed | None
) -> Measured:
    named = {f"{EXPOSED}{place}": each for place, each in enumerate(tensors)}
    valued = {f"{VALUES}{place}": each for place, each in enumerate(wanted)}
    exposed = expose(model, {name: (each, model) for name, each in named.items()}, "Shape")
    data, folder = referring_bytes(exposed)
    session = open_session(data, threads=1, optimize=False, label="the model", folder=folder)
    if feed is None:
        feed = next(iter(synthetic_samples(session, 1, 0)))
    found = session.run(feed)
    shapes = {id(each): tuple(feed[each.name].shape) for each in model.inputs}
    shapes |= {id(tensor): tuple(map(int, found[name])) for name, tensor in named.items()}
    values = {}
    if valued:
        exposed = expose(model, {name: (each, model) for name, each in valued.items()})
        data, folder = referring_bytes(exposed)
        session = open_session(data, threads=1, label="the model", folder=folder)
        found = session.run(feed)
        values = {
            id(tensor): found[name].astype(np.int64).ravel()
            for name, tensor in valued.items()
            if found[name].dtype.kind == "i"
        }
    return Measured(shapes, values)


def _inferred(model: Model) -> Shapes:
    try:
        data, _ = referring_bytes(model)
        inferred = onnx.shape_inference.infer_shapes(onnx.load_from_string(data))
    except (ModelError, onnx.shape_inference.InferenceError):
        return {}
    graph = inferred.graph
    known = {
        each.name: each.type.tensor_type.shape
        for each in (*graph.input, *graph.value_info, *graph.output)
        if each.type.tensor_type.HasField("shape")
    }
    computed = [each for node in model.nodes for each in node.outputs if each.name in known]
    sizes = {
        id(each): tuple(dim.dim_value for dim in known[each.name].dim)
        for each in (*(each for each in model.inputs if each.name in known), *computed)
    }
    return {key: shape for key, shape in sizes.items() if all(shape)}
