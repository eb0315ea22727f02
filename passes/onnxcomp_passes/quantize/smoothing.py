"""Moving the spread of an activation's channels into the weights that it is multiplied with.

X W = (X / s) (s W): where channels differ much, dividing each by a factor leaves a narrower range
to round, and weights, which have many scales, hardly mind (Xiao et al., "SmoothQuant", 2023). The
division is an operator of its own, so that it works behind any other; how strong it is, and
whether it is done at all, is chosen for each activation by what the model then gives out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from onnxcomp.graph import Constant, Node, Variable
from onnxcomp.statistics import Features

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from onnxcomp.statistics import Layer, Range
    from onnxcomp_passes.quantize.placement import Rounded

    Factors = NDArray[np.float32]

STRENGTHS = (0.4, 0.6, 0.8)
LARGEST_FACTOR = 1e3
LAST = Features(-1)


def smooths(rounded: Rounded, readers: Sequence[Layer], observed: Range) -> bool:
    """Whether an activation may be smoothed: its last axis is what all its readers sum over.

    What a channel reaches to is only known where it was seen about as often as there are channels.
    """
    return (
        not rounded.is_given
        and bool(readers)
        and observed.count >= len(observed.channels) ** 2
        and all(len(layer.uses) == 1 and layer.uses[0].view == LAST for layer in readers)
    )


def factors(observed: Range, readers: Sequence[Layer]) -> Iterator[Factors]:
    """Yield what the channels of an activation may be divided by, from weak to strong.

    Args:
        observed: The activation.
        readers: The layers that multiply it.
    """
    reach = observed.channels
    columns = [
        np.abs(layer.form.to_matrices(layer.weight.load())[0]).max(axis=0) for layer in readers
    ]
    weights = np.max(columns, axis=0).astype(np.float64)
    if len(weights) != len(reach) or not reach.any() or not weights.any():
        return
    reach = np.maximum(reach, reach.max() / LARGEST_FACTOR)
    weights = np.maximum(weights, weights.max() / LARGEST_FACTOR)
    for strength in STRENGTHS:
        raw = reach**strength / weights ** (1 - strength)
        yield (raw / np.exp(np.log(raw).mean())).astype(np.float32)


def smoothed_ends(observed: Range, divisors: Factors) -> tuple[float, float]:
    """Return bounds of what an activation takes once its channels are divided by factors."""
    low = np.minimum(observed.channels, max(-observed.least, 0.0)) / divisors
    high = np.minimum(observed.channels, max(observed.most, 0.0)) / divisors
    return -float(low.max()), float(high.max())


def smooth(rounded: Rounded, readers: Sequence[Layer], divisors: Factors) -> None:
    """Divide an activation by factors for some layers, and multiply their weights.

    Args:
        rounded: The activation.
        readers: The layers.
        divisors: Shape (channels,).
    """
    tensor, name = rounded.tensor, f"{rounded.name}.smoothed"
    inverse = Constant(f"{name}.factors", (1 / divisors).astype(rounded.dtype))
    divided = Variable(name, tensor.dtype, tensor.shape)
    for layer in readers:
        weight, (use,) = layer.weight, layer.uses
        values = layer.form.to_matrices(weight.load()) * divisors
        weight.tensor.values = layer.form.to_tensor(values).astype(weight.dtype)
        use.node.inputs[1 - use.place] = divided
    rounded.scope.nodes.append(Node("Mul", name, {}, [tensor, inverse], [divided]))
