"""Putting several small layers into a graph in the place of one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from onnxcomp.graph import Constant, Node, Variable
from onnxcomp.graph.operators import RECURRENCES
from onnxcomp_passes.factorize.sites import stored

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import onnx_graphsurgeon as gs
    from numpy.typing import NDArray

    from onnxcomp.graph import Graph, Model
    from onnxcomp_passes.factorize.kinds import Choice
    from onnxcomp_passes.factorize.pieces import Piece
    from onnxcomp_passes.factorize.sites import Site

    Arrays = Sequence[NDArray[Any]]

OPTIONAL_BIAS = 11
"""The opset from which on a Gemm needs no bias."""

DATA = 0
"""The input at which convolutions and recurrent layers take their data, and lookups the table."""


def split(
    site: Site, choice: Choice, arrays: Arrays, scopes: Mapping[int, Graph]
) -> list[Constant]:
    """Let several layers compute what one did.

    The operator itself stays as the last of them, with its bias and its output; of a lookup, as
    the first.

    Args:
        site: The weight and the operators that read it.
        choice: What it becomes.
        arrays: The weights, as of `Solved`.
        scopes: The graph or body that each operator is in, by the operator's identity.

    Returns:
        The constants that came in the place of the weight, which nothing reads any more.
    """
    pieces = choice.pieces(site)
    if not site.is_convolution:
        arrays = [stored(np.asarray(each), site) for each in arrays]
    if site.op in RECURRENCES:
        arrays = [arrays[0].T, arrays[1].reshape(*site.weight.shape[:2], -1)]
    constants = [
        Constant(
            factor_name(site.weight.name, place), np.ascontiguousarray(each, site.weight.dtype)
        )
        for place, each in enumerate(arrays)
    ]
    for node in site.nodes:
        if site.op == "Conv":
            made = _split_convolution(site, node, pieces, constants)
        elif site.op == "ConvTranspose":
            made = _split_transposed(site, node, pieces[0], constants)
        elif site.op in RECURRENCES:
            made = _split_recurrent(site, node, constants)
        elif site.op == "Gather":
            made = _split_lookup(site, node, constants)
        else:
            made = _split_product(site, node, constants)
        nodes = scopes[id(node)].nodes
        place = next(place for place, each in enumerate(nodes) if each is node)
        place += site.op == "Gather"
        nodes[place:place] = made
    return constants


def replace_constants(model: Model, new: Mapping[int, Sequence[Constant]]) -> None:
    """List constants where those were that they replace, so that later passes find them.

    Args:
        model: The model.
        new: What came in the place of a constant, by its identity.
    """
    for scope in model.all_scopes():
        scope.constants = [one for each in scope.constants for one in new.get(id(each), (each,))]


def _split_convolution(
    site: Site, node: gs.Node, pieces: Sequence[Piece], constants: Sequence[Constant]
) -> list[Node]:
    data, whole = node.inputs[DATA], dict(node.attrs)
    made = []
    for place, (piece, constant) in enumerate(zip(pieces[:-1], constants[:-1], strict=True)):
        between = _between(site, node, place)
        attributes = _attributes(whole, piece)
        made.append(Node("Conv", between.name, attributes, [data, constant], [between]))
        data = between
    node.attrs = _attributes(whole, pieces[-1])
    node.inputs[DATA], node.inputs[1] = data, constants[-1]
    return made


def _split_transposed(
    site: Site, node: gs.Node, first: Piece, constants: Sequence[Constant]
) -> list[Node]:
    between = _between(site, node, 0)
    attributes = _attributes({}, first)
    made = Node("Conv", between.name, attributes, [node.inputs[DATA], constants[0]], [between])
    node.inputs[DATA], node.inputs[1] = between, constants[1]
    return [made]


def _attributes(whole: dict[str, Any], piece: Piece) -> dict[str, Any]:
    """Return the attributes of a convolution that does a part of another one's work."""
    kernel = list(piece.shape[2:])
    count = len(kernel)
    found: dict[str, Any] = {"kernel_shape": kernel}
    if piece.groups > 1:
        found["group"] = piece.groups
    for name in ("strides", "dilations"):
        if name in whole:
            found[name] = [
                value if axis in piece.axes else 1 for axis, value in enumerate(whole[name])
            ]
    if "pads" in whole:
        found["pads"] = [
            value if axis % count in piece.axes else 0 for axis, value in enumerate(whole["pads"])
        ]
    if "auto_pad" in whole:
        found["auto_pad"] = whole["auto_pad"]
    return found


def _split_product(site: Site, node: gs.Node, constants: Sequence[Constant]) -> list[Node]:
    place = site.place
    read, own, other = node.inputs[1 - place], f"trans{'AB'[place]}", f"trans{'AB'[1 - place]}"
    between = _between(site, node, 0)
    given = [constants[0], read] if place == 0 else [read, constants[0]]
    attributes: dict[str, Any] = {}
    if node.op == "Gemm":
        attributes = {key: node.attrs[key] for key in (own, other) if key in node.attrs}
        node.attrs.pop(other, None)
        if site.weight.opset < OPTIONAL_BIAS:
            nothing = np.zeros(1, site.weight.dtype)
            given.append(Constant(f"{between.name}.zero", nothing))
    made = Node(node.op, between.name, attributes, given, [between])
    node.inputs[place], node.inputs[1 - place] = constants[1], between
    return [made]


def _split_recurrent(site: Site, node: gs.Node, constants: Sequence[Constant]) -> list[Node]:
    between = _between(site, node, 0)
    made = Node("MatMul", between.name, {}, [node.inputs[DATA], constants[0]], [between])
    node.inputs[DATA], node.inputs[1] = between, constants[1]
    return [made]


def _split_lookup(site: Site, node: gs.Node, constants: Sequence[Constant]) -> list[Node]:
    output = node.outputs[0]
    between = _between(site, node, 0)
    node.inputs[DATA] = constants[1]
    node.outputs[0] = between
    made = Node("MatMul", f"{between.name}.product", {}, [between, constants[0]], [output])
    return [made]


def _between(site: Site, node: gs.Node, place: int) -> Variable:
    """Return what one layer gives to the next."""
    name = next(each.name for each in node.outputs if each.name)
    # Named after the weight too, whose name is new each time that a layer is split again.
    return Variable(f"{factor_name(site.weight.name, place)}.{name}", site.weight.dtype)


def factor_name(name: str, place: int) -> str:
    """Return the name of a factor of a weight."""
    return f"{name}.low_rank.{place}"
