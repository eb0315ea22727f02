"""Putting a branch of two small layers beside a layer."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from onnxcomp.graph import Constant, Node, Variable
from onnxcomp_passes.factorize.splitting import OPTIONAL_BIAS, split

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import onnx_graphsurgeon as gs
    from numpy.typing import NDArray

    from onnxcomp.graph import Graph
    from onnxcomp_passes.factorize.kinds import Choice
    from onnxcomp_passes.factorize.sites import Site

BIAS_PLACE = 2
"""The input at which convolutions and Gemm take a bias."""


def add_branch(
    site: Site, choice: Choice, arrays: Sequence[NDArray[Any]], scopes: Mapping[int, Graph]
) -> list[Constant]:
    """Let two small layers compute something beside each operator, which is added.

    Args:
        site: The weight and the operators that read it.
        choice: What the branch is.
        arrays: Its weights, as of `Solved`.
        scopes: The graph or body that each operator is in, by the operator's identity.

    Returns:
        The constants of the branch.
    """
    copies, owners = [], {}
    for node in site.nodes:
        scope = scopes[id(node)]
        copies.append(_beside(site, node, scope))
        owners[id(copies[-1])] = scope
    return split(replace(site, nodes=tuple(copies)), choice, arrays, owners)


def _beside(site: Site, node: gs.Node, scope: Graph) -> Node:
    """Let a copy of an operator, without its bias, be added to what the operator gives."""
    output = node.outputs[0]
    own = Variable(f"{output.name}.coded", output.dtype, output.shape)
    other = Variable(f"{output.name}.residual", output.dtype, output.shape)
    inputs = list(node.inputs[:BIAS_PLACE])
    if site.op == "Gemm" and site.weight.opset < OPTIONAL_BIAS:
        inputs.append(Constant(f"{other.name}.zero", np.zeros(1, site.weight.dtype)))
    copy = Node(node.op, other.name, dict(node.attrs), inputs, [other])
    node.outputs[0] = own
    added = Node("Add", f"{output.name}.sum", {}, [own, other], [output])
    place = next(place for place, each in enumerate(scope.nodes) if each is node)
    scope.nodes[place : place + 1] = [copy, node, added]
    return copy
