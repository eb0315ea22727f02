"""The size of every axis, measured: the model is run once and gives out its tensors' shapes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnx

from onnxcomp.errors import DataError, ModelError
from onnxcomp.graph import bodies_of, expose, referring_bytes
from onnxcomp.runtime import open_session, synthetic_samples

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import onnx_graphsurgeon as gs

    from onnxcomp.graph import Model
    from onnxcomp.runtime import Feed

EXPOSED = "onnxcomp.shape."
"""Starts the name of an output."""

NOT_TENSORS = ("Sequence", "Optional", "Map")
"""What is in the name of an operator that gives something else than tensors."""

Shapes = dict[int, tuple[int, ...]]
"""By identity of the tensor; a tensor of unknown shape is missing."""


def measure_shapes(model: Model, feed: Feed | None = None) -> Shapes:
    """Return the shapes of the tensors of the main graph.

    Where the model does not run on what is fed, those that ONNX's shape inference knows.

    Args:
        model: The model.
        feed: One sample; made up where there is none.
    """
    computed = [each for node in model.nodes for each in node.outputs if each.name]
    plain = [each for node in model.nodes if _is_plain(node) for each in node.outputs if each.name]
    shapes = {
        id(tensor): tuple(tensor.shape)
        for node in model.nodes
        for tensor in node.inputs
        if hasattr(tensor, "held")
    }
    shapes |= {id(each): tuple(each.shape) for each in model.constants}
    for tensors in (computed, plain):
        try:
            return shapes | _run(model, tensors, feed)
        except (ModelError, DataError):
            continue
    return shapes | _inferred(model)


def _is_plain(node: gs.Node) -> bool:
    is_standard = node.domain in {None, "", "ai.onnx"}
    gives_tensors = not any(word in node.op for word in NOT_TENSORS)
    return is_standard and gives_tensors and not any(bodies_of(node))


def _run(model: Model, tensors: Sequence[gs.Tensor], feed: Feed | None) -> Shapes:
    named = {f"{EXPOSED}{place}": (each, model) for place, each in enumerate(tensors)}
    data, folder = referring_bytes(expose(model, named, "Shape"))
    session = open_session(data, threads=1, optimize=False, label="the model", folder=folder)
    if feed is None:
        feed = next(iter(synthetic_samples(session, 1, 0)))
    given: Mapping[str, gs.Tensor] = {each.name: each for each in model.inputs}
    shapes = {id(given[name]): tuple(array.shape) for name, array in feed.items()}
    found = session.run(feed)
    return shapes | {
        id(tensor): tuple(map(int, found[name])) for name, (tensor, _) in named.items()
    }


def _inferred(model: Model) -> Shapes:
    try:
        data, _ = referring_bytes(model)
        inferred = onnx.shape_inference.infer_shapes(onnx.load_from_string(data))
    except (ModelError, onnx.shape_inference.InferenceError):
        return {}
    graph = inferred.graph
    known = {each.name: each.type.tensor_type for each in (*graph.value_info, *graph.output)}
    shapes = {}
    tensors = [*model.inputs, *(each for node in model.nodes for each in node.outputs)]
    for tensor in tensors:
        dims = known[tensor.name].shape.dim if tensor.name in known else []
        if dims and all(dim.dim_value for dim in dims):
            shapes[id(tensor)] = tuple(dim.dim_value for dim in dims)
    return shapes
