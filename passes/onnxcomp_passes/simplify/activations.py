"""Hard sigmoids and hard swishes that were exported in pieces, as HardSigmoid.

``Clip(x + 3, 0, 6) / 6`` is ``HardSigmoid(x, 1/6, 1/2)``, and what Paddle and PyTorch write for a
hard swish, ``x * Clip(x + 3, 0, 6) / 6``, is x times that (Howard et al. 2019, section 5.2): two
passes over memory in place of four. HardSwish, which needs opset 14, ONNX Runtime takes apart into
the same two.

NaN and the infinities give what they gave before: ONNX Runtime lets NaN through both, and minus
infinity times 0 is NaN in both. Only an x above a sixth of the largest float32 differs, where it
was multiplied by 6 first: infinity was given for it, and now it is given as it is.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from onnxcomp.graph import is_fixed, store_of

if TYPE_CHECKING:
    import onnx_graphsurgeon as gs

    from onnxcomp.graph import Graph, Model

FIRST_OPSET = 7
"""Before, an attribute told how Add, Mul and Div broadcast."""

FIRST_OPSET_WITH_COMPUTED_BOUNDS = 11
"""Before, the bounds of a Clip were attributes."""

STANDARD = {None, "", "ai.onnx"}
"""Names of the domain of the standard operators."""

SHIFT, LOW, HIGH, DIVISOR = 3.0, 0.0, 6.0, 6.0

FACTOR = float(np.float32(1 / 6))

HARD_SIGMOID = {"alpha": 1 / 6, "beta": 0.5}

Test = Callable[[Any], bool]


def write_hard_sigmoids(model: Model) -> None:
    """Replace every hard sigmoid and hard swish in pieces that can be by HardSigmoid.

    Pieces that something else reads or that are graph outputs stay, and so do those of other types
    than float32, for which ONNX Runtime has no HardSigmoid.

    Args:
        model: The model, with the shapes of its tensors where they are known; changed in place.
    """
    outputs = {id(each) for scope in model.all_scopes() for each in scope.outputs}

    def is_plain(tensor: Any) -> bool:
        """Whether a tensor is nobody's business outside of the model."""
        return id(tensor) not in outputs

    needless: set[int] = set()
    for top in (model, *model.local_functions):
        if top.opset >= FIRST_OPSET:
            for scope in top.scopes():
                finder = _Finder(scope, top.opset, is_plain)
                for clip in [node for node in scope.nodes if node.op == "Clip"]:
                    found = finder.find(clip)
                    if found is not None:
                        needless |= _replace(found, scope)
    for scope in model.all_scopes():
        scope.constants = [
            each for each in scope.constants if each.outputs or id(each) not in needless
        ]


class _Pieces(NamedTuple):
    """The pieces of a hard sigmoid or a hard swish.

    Attributes:
        source: What the activation is of.
        shift: The Add.
        clip: The Clip.
        scale: The Div or Mul that divides by six.
        product: The Mul by the source, for a hard swish.
    """

    source: gs.Tensor
    shift: gs.Node
    clip: gs.Node
    scale: gs.Node
    product: gs.Node | None


class _Finder:
    """Finds the activations of one scope."""

    def __init__(self, scope: Graph, opset: int, is_plain: Test) -> None:
        self._own = {id(node) for node in scope.nodes}
        self._opset = opset
        self._is_plain = is_plain

    def find(self, clip: gs.Node) -> _Pieces | None:
        """Return the activation that a Clip is part of; None where there is none."""
        shift = self._only_maker(clip.inputs[0]) if self._clips(clip) else None
        source = None if shift is None else self._source_of_shift(shift)
        clipped = clip.outputs[0]
        reader = None if source is None else self._only_reader(clipped)
        if source is None or shift is None or reader is None:
            return None
        if self._scaled(reader) is clipped:
            return _Pieces(source, shift, clip, reader, None)
        if reader.op != "Mul" or reader.domain not in STANDARD:
            return None
        factor = reader.inputs[0 if reader.inputs[1] is clipped else 1]
        # The six may divide the product, or the source before it is multiplied.
        scale = (
            self._only_reader(reader.outputs[0]) if factor is source else self._only_maker(factor)
        )
        divided = reader.outputs[0] if factor is source else source
        if scale is None or self._scaled(scale) is not divided:
            return None
        return _Pieces(source, shift, clip, scale, reader)

    def _only_reader(self, tensor: gs.Tensor) -> gs.Node | None:
        """Return the node that alone reads a tensor; None where it is in another scope."""
        if not self._is_plain(tensor) or len(tensor.outputs) != 1:
            return None
        reader = tensor.outputs[0]
        return reader if id(reader) in self._own else None

    def _only_maker(self, tensor: gs.Tensor) -> gs.Node | None:
        """Return the node that computes a tensor for one reader alone."""
        is_own = self._is_plain(tensor) and len(tensor.outputs) == 1 and bool(tensor.inputs)
        maker = tensor.inputs[0] if is_own else None
        return maker if maker is not None and id(maker) in self._own else None

    def _clips(self, clip: gs.Node) -> bool:
        """Whether a Clip is one from 0 to 6."""
        if clip.domain not in STANDARD:
            return False
        if self._opset < FIRST_OPSET_WITH_COMPUTED_BOUNDS:
            return (clip.attrs.get("min"), clip.attrs.get("max")) == (LOW, HIGH)
        bounds = [self._number(each) for each in clip.inputs[1:]]
        return bounds == [LOW, HIGH]

    def _source_of_shift(self, node: gs.Node) -> gs.Tensor | None:
        """Return what 3 is added to."""
        if node.op != "Add" or node.domain not in STANDARD:
            return None
        return self._other(node, SHIFT)

    def _scaled(self, node: gs.Node) -> gs.Tensor | None:
        """Return what a node divides by 6."""
        if node.domain not in STANDARD:
            return None
        if node.op == "Mul":
            return self._other(node, FACTOR)
        if node.op == "Div" and self._is_number(node.inputs[1], DIVISOR, node.inputs[0]):
            return node.inputs[0]
        return None

    def _other(self, node: gs.Node, number: float) -> gs.Tensor | None:
        """Return the operand of a node whose other operand is a number."""
        one, other = node.inputs
        if self._is_number(other, number, one):
            return one
        return other if self._is_number(one, number, other) else None

    def _is_number(self, tensor: gs.Tensor, number: float, operand: gs.Tensor) -> bool:
        """Whether a tensor is a number and leaves an operand its shape."""
        if self._number(tensor) != number:
            return False
        rank = len(tensor.shape or ())
        return rank == 0 or (operand.shape is not None and rank <= len(operand.shape))

    def _number(self, tensor: gs.Tensor) -> float | None:
        """Return the one float32 that a constant holds; the operands then are float32 too."""
        if not is_fixed(tensor) or not self._is_plain(tensor):
            return None
        is_lone = np.dtype(tensor.dtype) == np.float32 and set(tensor.shape) <= {1}
        if not is_lone or store_of(tensor) is not None:
            return None
        return float(tensor.values.reshape(()))


def _replace(pieces: _Pieces, scope: Graph) -> set[int]:
    """Write a HardSigmoid for a Clip; return the identities of what was read and may go."""
    source, shift, clip, scale, product = pieces
    gone = {id(shift), id(scale)}
    needless = {id(tensor) for node in (shift, clip, scale) for tensor in node.inputs}
    clipped = clip.outputs[0]
    last = scale
    if product is not None and not any(each is product.outputs[0] for each in scale.inputs):
        last = product
    result = last.outputs[0]
    for node in (shift, scale):
        node.inputs.clear()
        node.outputs.clear()
    clip.op = "HardSigmoid"
    clip.attrs = dict(HARD_SIGMOID)
    clip.inputs = [source]
    if product is None:
        clip.outputs = [result]
    else:
        product.inputs = [source, clipped]
        product.outputs = [result]
    scope.nodes = [node for node in scope.nodes if id(node) not in gone]
    return needless
