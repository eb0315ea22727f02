"""onnxscript's optimizer, held to what is exact and does not make the file larger."""

from __future__ import annotations

import logging
import warnings
from contextlib import contextmanager
from functools import partial
from math import prod
from typing import TYPE_CHECKING, Any

from onnxcomp_passes.simplify.growth import affordable

if TYPE_CHECKING:
    from collections.abc import Iterator

    import onnx
    import onnx_ir as ir

    from onnxcomp.graph import Load

ROUNDS = 4
"""Folding and rewriting make room for each other; few models need a third round."""

FEW_ELEMENTS = 1024
"""Inputs of a node that is folded without asking what it costs."""

FEW_RESULTS = 32
"""Elements that its result may be longer than what it replaces."""

NO_LIMIT = 1 << 62

RANDOM = {
    "Bernoulli",
    "Dropout",
    "Multinomial",
    "RandomNormal",
    "RandomNormalLike",
    "RandomUniform",
    "RandomUniformLike",
}
"""Operators that may give another result each time."""

KEPT = RANDOM | {"ConstantOfShape", "DequantizeLinear", "DynamicQuantizeLinear", "QuantizeLinear"}
"""Operators that are never folded: their results are random, large, or quantized on purpose."""

RULES = (
    "collapse_slice_rule",
    "collapse_slice2_rule",
    "fuse_pad_into_conv_rule",
    "no_op_cast_rule",
    "no_op_expand_rule",
    "no_op_transpose_rule",
    "normalize_pad_format_conv_rule",
    "reshape_reshape_rule",
    "transpose_transpose_rule",
    "unsqueeze_unsqueeze_rule",
)
"""Rules that are exact.

Rules for ``x + 0`` and ``x * 1`` are not among them: they take 1e-9 for 0, and a logarithm or a
quotient that was kept from infinity by it is no more.
"""

OWN_METADATA = "pkg.onnxscript."


def optimize(proto: onnx.ModelProto, load: Load, *, shares_results: bool) -> onnx.ModelProto:
    """Fold constants, and remove no-ops, duplicates and dead nodes.

    Args:
        proto: The model; its tensors are external.
        load: Loads the values of an external tensor, given its location.
        shares_results: Whether nodes with the same inputs give the same results.

    Raises:
        RuntimeError: onnxscript cannot do it.
    """
    import onnx_ir as ir  # noqa: PLC0415 - half a second, which only this pass pays

    for _ in range(ROUNDS):
        with _quiet():
            # Read anew each time: onnx_ir still counts a branch that was folded away as a reader.
            model = ir.from_proto(proto)
            before = _size(model)
            hidden = _make_lazy(model, load)
            _optimize_once(model, shares_results=shares_results)
            _forget_notes(model)
            _make_external(model, hidden)
            proto = ir.to_proto(model)
        if _size(model) == before:
            break
    return proto


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep what onnxscript and numpy say of single nodes from the caller's terminal."""
    loggers = [logging.getLogger(name) for name in ("onnx_ir", "onnxscript")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.CRITICAL)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _optimize_once(model: ir.Model, *, shares_results: bool) -> None:
    from onnx_ir.passes import common  # noqa: PLC0415
    from onnxscript import optimizer, rewriter  # noqa: PLC0415
    from onnxscript.rewriter.rules import common as rules  # noqa: PLC0415

    optimizer.fold_constants_ir(
        model,
        onnx_shape_inference=True,
        input_size_limit=FEW_ELEMENTS,
        output_size_limit=FEW_RESULTS,
        should_fold=_should_fold,
    )
    chosen = affordable(model, _is_foldable)
    if chosen:
        optimizer.fold_constants_ir(
            model,
            onnx_shape_inference=True,
            input_size_limit=NO_LIMIT,
            output_size_limit=NO_LIMIT,
            should_fold=lambda node: node in chosen,
        )
    rewriter.rewrite(model, [getattr(rules, name) for name in RULES])
    common.DeduplicateInitializersPass(size_limit=FEW_ELEMENTS)(model)
    if shares_results:
        common.CommonSubexpressionEliminationPass()(model)
    common.RemoveUnusedNodesPass()(model)


def _size(model: ir.Model) -> tuple[int, int]:
    graphs = list(model.graphs())
    return sum(map(len, graphs)), sum(len(graph.initializers) for graph in graphs)


def _should_fold(node: ir.Node) -> bool | None:
    """Whether to fold a node of constants; None leaves it to the limits."""
    if node.op_type == "ConstantOfShape":
        sizes = None if node.inputs[0] is None else node.inputs[0].const_value
        is_short = sizes is not None and prod(sizes.numpy().tolist()) <= FEW_RESULTS
        return is_short and not node.outputs[0].is_graph_output()
    return None if _is_foldable(node) else False


def _is_foldable(node: ir.Node) -> bool:
    """Whether a node gives one tensor, the same each time, that should be a constant."""
    kinds = {attribute.type.name for attribute in node.attributes.values()}
    return (
        node.domain in {"", "ai.onnx"}
        and node.op_type not in KEPT
        and len(node.outputs) == 1
        and not node.outputs[0].is_graph_output()
        and not kinds & {"GRAPH", "GRAPHS"}
    )


def _make_lazy(model: ir.Model, load: Load) -> dict[int, ir.ExternalTensor]:
    """Let external tensors be loaded when they are folded; return them by what stands for them."""
    import onnx_ir as ir  # noqa: PLC0415

    hidden = {}
    for graph in model.graphs():
        for value in graph.initializers.values():
            tensor = value.const_value
            if isinstance(tensor, ir.ExternalTensor):
                read = partial(_read, load, str(tensor.location), tensor.dtype)
                lazy = ir.LazyTensor(read, tensor.dtype, tensor.shape, name=tensor.name)
                lazy.cache = tensor.size <= FEW_ELEMENTS
                hidden[id(lazy)] = tensor
                value.const_value = lazy
    return hidden


def _read(load: Load, location: str, dtype: ir.DataType) -> ir.TensorProtocol:
    import onnx_ir as ir  # noqa: PLC0415

    return ir.Tensor(load(location), dtype=dtype)


def _make_external(model: ir.Model, hidden: dict[int, ir.ExternalTensor]) -> None:
    for graph in model.graphs():
        for value in graph.initializers.values():
            external = hidden.get(id(value.const_value))
            if external is not None and value.name is not None:
                external.name = value.name
                value.const_value = external


def _forget_notes(model: ir.Model) -> None:
    """Remove what onnxscript writes into the metadata about each thing that it did."""
    for graph in model.graphs():
        for node in graph:
            _drop_notes(node.metadata_props)
            for value in node.outputs:
                _drop_notes(value.metadata_props)
        for value in graph.initializers.values():
            _drop_notes(value.metadata_props)


def _drop_notes(metadata: Any) -> None:
    for key in [key for key in metadata if key.startswith(OWN_METADATA)]:
        del metadata[key]
