"""A weight as the matrices of a linear operator, and the tensors that they are multiplied with."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from onnxcomp.graph import Constant, bodies_of, weights, why_hidden
from onnxcomp.graph.operators import CONVOLUTIONS, PRODUCTS, RECURRENCES
from onnxcomp.statistics.columns import Features, HiddenStates, Patches, View

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import onnx_graphsurgeon as gs
    from numpy.typing import NDArray

    from onnxcomp.graph import Graph, Model, Weight
    from onnxcomp.graph.weights import Reader

WIDEST = 8192
"""Wider columns are not observed: a second moment of them takes half a gigabyte."""

INITIAL_STATE = 5
"""The input of a recurrent operator at which it takes its initial hidden state."""


@dataclass(frozen=True)
class Form:
    """How a tensor becomes matrices: it is split, its axes are put in order, then joined.

    Args:
        tensor: The tensor's shape.
        split: Sizes of its axes, some cut in two.
        order: Which of these come first.
        matrices: Shape (groups, outputs, inputs).
    """

    tensor: tuple[int, ...]
    split: tuple[int, ...]
    order: tuple[int, ...]
    matrices: tuple[int, int, int]

    def to_matrices(self, values: NDArray[Any]) -> NDArray[Any]:
        """Arrange a tensor as matrices."""
        return values.reshape(self.split).transpose(self.order).reshape(self.matrices)

    def to_tensor(self, matrices: NDArray[Any]) -> NDArray[Any]:
        """Arrange matrices as a tensor."""
        ordered = matrices.reshape([self.split[axis] for axis in self.order])
        return ordered.transpose(np.argsort(self.order)).reshape(self.tensor)


@dataclass(frozen=True, eq=False)
class Use:
    """One operator that multiplies a weight with columns.

    Args:
        node: The operator.
        place: The input at which it takes the weight.
        scope: The graph or branch that the operator is in.
        view: How the columns lie in ``tensors``.
        tensors: What has to be observed.
        form: How the weight becomes matrices.
    """

    node: gs.Node
    place: int
    scope: Graph
    view: View
    tensors: tuple[gs.Tensor, ...]
    form: Form

    @property
    def activations(self) -> tuple[gs.Tensor, ...]:
        """What the operator reads beside the weight, and what it gives, where it gives that."""
        read = self.node.inputs[_other_place(self.node, self.place)]
        return (read, *(each for each in self.node.outputs[:1] if each.name))

    @cached_property
    def addend(self) -> gs.Tensor | None:
        """What is added to all that the operator gives, after its bias: the residual of a block.

        It is known for matrix products and convolutions of one group, where nothing is scaled
        and features lie on one axis before and after.
        """
        if self.node.op not in {"MatMul", "Gemm", "Conv"} or self.form.matrices[0] > 1:
            return None
        is_turned = self.node.op == "Gemm" and self.view != Features(-1 if self.place else -2)
        if is_turned or self.node.attrs.get("alpha", 1.0) != 1:
            return None
        output = self.node.outputs[0]
        for _ in range(2):
            given = any(output is each for each in self.scope.outputs)
            if given or len(output.outputs) != 1 or output.outputs[0].op != "Add":
                return None
            added = output.outputs[0]
            if all(added is not each for each in self.scope.nodes):
                return None
            other = added.inputs[int(added.inputs[0] is output)]
            if not isinstance(other, Constant):
                return other
            output = added.outputs[0]
        return None


@dataclass(frozen=True, eq=False)
class Layer:
    """A weight as matrices W, shape (groups, outputs, inputs), that multiply columns x.

    Args:
        weight: The weight.
        uses: The operators that multiply with it; none where its columns cannot be observed.
        key: The weight's name, after the branches that it lives in; no other layer has it.
        reason: Why they cannot, in words that follow "its layer"; empty if they can.
    """

    weight: Weight
    uses: tuple[Use, ...]
    key: str
    reason: str = ""

    @property
    def name(self) -> str:
        """The weight's name."""
        return self.weight.name

    @property
    def form(self) -> Form:
        """How the weight becomes matrices, the same for all uses."""
        return self.uses[0].form


class _HiddenError(Exception):
    """Why the columns of a layer cannot be observed."""


def layers(model: Model) -> list[Layer]:
    """Return every weight of a model as a layer, in the order of the file."""
    scopes = {id(node): scope for scope in model.all_scopes() for node in scope.nodes}
    hidden = {id(scope): why_hidden(model, scope) for scope in model.all_scopes()}
    keys = {
        id(constant): f"{path}{constant.name}"
        for top in (model, *model.local_functions)
        for path, scope in _paths(top, "" if top is model else f"{top.name}/")
        for constant in scope.constants
    }
    return [_layer(each, keys[id(each.tensor)], scopes, hidden) for each in weights(model)]


def _paths(scope: Graph, path: str) -> Iterator[tuple[str, Graph]]:
    """Yield a scope and all bodies inside it, each after what tells it from others."""
    yield path, scope
    for node in scope.nodes:
        for place, body in enumerate(bodies_of(node)):
            yield from _paths(body, f"{path}{node.outputs[0].name}.{place}/")


def _layer(
    weight: Weight, key: str, scopes: Mapping[int, Graph], hidden: Mapping[int, str | None]
) -> Layer:
    try:
        uses = tuple(_use(weight, reader, scopes, hidden) for reader in weight.readers)
    except _HiddenError as error:
        return Layer(weight, (), key, str(error))
    if len({use.form for use in uses}) != 1:
        return Layer(weight, (), key, "reads it in several ways" if uses else "is missing")
    return Layer(weight, uses, key)


def _use(
    weight: Weight, reader: Reader, scopes: Mapping[int, Graph], hidden: Mapping[int, str | None]
) -> Use:
    node, place = reader.node, reader.place
    scope = scopes[id(node)]
    reason = hidden[id(scope)]
    if reason is not None:
        raise _HiddenError(reason)
    if not reader.is_direct:
        raise _HiddenError("reads it through other operators; simplify may fold them")
    if node.op in CONVOLUTIONS and place == 1:
        view, form = _convolution(node, weight.shape)
    elif node.op in PRODUCTS and place in {0, 1}:
        view, form = _product(node, place, weight.shape)
    elif node.op in RECURRENCES and place in {1, 2}:
        view, form = _recurrent(node, place, weight.shape)
    elif node.op == "Gather":
        raise _HiddenError("only looks rows up")
    else:
        raise _HiddenError(f"multiplies it with nothing that is observed ({node.op})")
    if form.matrices[2] > WIDEST:
        raise _HiddenError(f"multiplies it with columns of more than {WIDEST} elements")
    tensors = _observed(node, place)
    if any(isinstance(tensor, Constant) for tensor in tensors):
        raise _HiddenError("multiplies it with a constant")
    return Use(node, place, scope, view, tensors, form)


def _observed(node: gs.Node, place: int) -> tuple[gs.Tensor, ...]:
    if node.op in RECURRENCES and place == 2:  # noqa: PLR2004 - the recurrence weight
        if not node.outputs or not node.outputs[0].name:
            raise _HiddenError("does not give its hidden states")
        initial = node.inputs[INITIAL_STATE:][:1]
        return (node.outputs[0], *(each for each in initial if each.name))
    return (node.inputs[_other_place(node, place)],)


def _other_place(node: gs.Node, place: int) -> int:
    """Return the input at which an operator takes what it multiplies the weight with."""
    return 1 - place if node.op in PRODUCTS else 0


def _convolution(node: gs.Node, shape: tuple[int, ...]) -> tuple[View, Form]:
    groups = int(node.attrs.get("group", 1))
    outputs, inputs, *kernel = shape
    taps = prod(kernel)
    rank = len(kernel)
    if node.op == "ConvTranspose":
        # Errors of taps that overlap in an output are taken as independent.
        split = (groups, outputs // groups, inputs, taps)
        form = Form(shape, split, (0, 2, 3, 1), (groups, inputs * taps, outputs // groups))
        return Features(1, groups), form
    pads = tuple(node.attrs.get("pads", (0,) * 2 * rank))
    automatic = node.attrs.get("auto_pad", "NOTSET")
    if automatic == "VALID":
        pads = (0,) * 2 * rank
    view = Patches(
        kernel=tuple(kernel),
        strides=tuple(node.attrs.get("strides", (1,) * rank)),
        dilations=tuple(node.attrs.get("dilations", (1,) * rank)),
        pads=None if automatic.startswith("SAME") else pads,
        lower=automatic == "SAME_LOWER",
        groups=groups,
    )
    matrices = (groups, outputs // groups, inputs * taps)
    return view, Form(shape, matrices, (0, 1, 2), matrices)


def _product(node: gs.Node, place: int, shape: tuple[int, ...]) -> tuple[View, Form]:
    if len(shape) != 2:  # noqa: PLR2004 - a matrix
        raise _HiddenError("multiplies with a stack of matrices")
    is_gemm = node.op == "Gemm"
    own = bool(is_gemm and node.attrs.get("transB" if place == 1 else "transA", 0))
    other = bool(is_gemm and node.attrs.get("transA" if place == 1 else "transB", 0))
    # On the right, inputs are the weight's rows and the other's columns; on the left, vice versa.
    is_right = place == 1
    rows_are_outputs = own == is_right
    view = Features(-1 if other != is_right else -2)
    order = (0, 1) if rows_are_outputs else (1, 0)
    return view, Form(shape, shape, order, (1, shape[order[0]], shape[order[1]]))


def _recurrent(node: gs.Node, place: int, shape: tuple[int, ...]) -> tuple[View, Form]:
    form = Form(shape, shape, (0, 1, 2), (shape[0], shape[1], shape[2]))
    if place == 1:
        return Features(-1), form
    if node.attrs.get("layout", 0):
        raise _HiddenError("has its samples first (layout = 1)")
    direction = node.attrs.get("direction", "forward")
    reverse = {"forward": (False,), "reverse": (True,), "bidirectional": (False, True)}
    return HiddenStates(reverse[direction]), form
