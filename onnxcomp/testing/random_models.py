"""Random valid models, for tests that no model somebody thought of would fail.

::

    model = random_model(seed=7)
    for feed in random_feeds(model, seed=7, count=3):
        ...

A model has layers of many kinds with weights in initializers, Constant nodes and bodies, some of
them shared; activations that several layers read; any opset from 11 to 21; and a batch that is
fixed or free. Its outputs are finite and of a moderate scale.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx

from onnxcomp.testing.random_builder import Builder, Value
from onnxcomp.testing.random_layers import (
    batch_normalization,
    condition,
    conv,
    conv_transpose,
    gemm,
    layer_normalization,
    matmul,
    matmul_left,
    residual,
    same_shape,
    scale,
)
from onnxcomp.testing.random_operators import (
    activation,
    attention,
    combine,
    flatten,
    global_average_pool,
    pool,
    reshape,
    softmax,
    transpose,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    Layer = Callable[[Builder, Value], Value | None]

OPSETS = range(11, 22)
MOST_LAYERS = 14
MOST_TRIALS = 80
FREE_BATCH = 4
"""Samples in one feed at most, where the batch is free."""


def random_model(seed: int) -> onnx.ModelProto:
    """Return a model that depends on the seed only.

    Args:
        seed: From 0.
    """
    numbers = np.random.default_rng([seed, 0])
    opset = int(numbers.choice(OPSETS))
    batch = None if numbers.random() < 0.5 else int(numbers.integers(1, FREE_BATCH))  # noqa: PLR2004
    b = Builder(numbers, opset, batch, constants=float(numbers.choice([0.0, 0.0, 0.3, 1.0])))
    x = Value("x", (batch or 2, *b.pick(_SHAPES)(b)))
    b.values.append(x)
    _grow(b, int(numbers.integers(2, MOST_LAYERS)))
    graph = onnx.helper.make_graph(
        b.nodes, f"random_{seed}", [b.port(x)], _outputs(b), b.initializers
    )
    opsets = [onnx.helper.make_opsetid("", opset)]
    return onnx.helper.make_model(
        graph,
        opset_imports=opsets,
        ir_version=onnx.helper.find_min_ir_version_for(opsets),
        producer_name="onnxcomp.testing",
    )


def random_feeds(model: onnx.ModelProto, seed: int, count: int) -> list[dict[str, NDArray[Any]]]:
    """Return normal inputs for a random model, each feed with a batch of its own where it is free.

    Args:
        model: What `random_model` gave.
        seed: From 0; the feeds depend on it only, and on the model's inputs.
        count: How many.
    """
    numbers = np.random.default_rng([seed, 1])
    feeds = []
    for _ in range(count):
        batch = int(numbers.integers(1, FREE_BATCH + 1))
        feed = {}
        for each in model.graph.input:
            dims = each.type.tensor_type.shape.dim
            shape = [batch if dim.dim_param else dim.dim_value for dim in dims]
            feed[each.name] = numbers.standard_normal(shape, np.float32)
        feeds.append(feed)
    return feeds


_SHAPES: tuple[Callable[[Builder], tuple[int, ...]], ...] = (
    lambda b: (b.pick((1, 3, 4, 8)), b.pick((7, 8, 12)), b.pick((8, 9, 12))),
    lambda b: (b.pick((1, 3, 4, 8)), b.pick((7, 8, 12)), b.pick((8, 9, 12))),
    lambda b: (b.pick((3, 5, 8)), b.pick((8, 16, 24))),
    lambda b: (b.pick((8, 16, 40)),),
)
"""Of one sample: planes, twice as often as the others, a sequence, a vector."""


def _grow(b: Builder, count: int) -> None:
    """Add layers, mostly to the newest value; the first has weights."""
    b.values.append(same_shape(b, b.values[0]))
    for _ in range(MOST_TRIALS):
        x = b.values[-1] if b.chance(0.85) else b.pick(b.values)
        made = b.pick(LAYERS)(b, x)
        if made is not None:
            b.values.append(made)
        if len(b.values) >= count + 2:
            return


def _outputs(b: Builder) -> list[onnx.ValueInfoProto]:
    """Return what nothing reads, and now and then what something does read as well."""
    read = {name for node in b.nodes for name in node.input}
    read |= {name for node in b.nodes for each in node.attribute for name in _outer(each)}
    return [b.port(value) for value in b.values[1:] if value.name not in read or b.chance(0.05)]


def _outer(attribute: onnx.AttributeProto) -> Iterator[str]:
    """Give the names that a body reads, of its own values and of those around it."""
    for node in attribute.g.node:
        yield from node.input


LAYERS: tuple[Layer, ...] = (
    *(conv, conv, conv, conv, conv_transpose, gemm, gemm, gemm, matmul, matmul, matmul_left),
    *(activation, activation, activation, residual, residual, combine, combine, scale),
    *(batch_normalization, layer_normalization, softmax, attention, condition),
    *(pool, pool, global_average_pool, flatten, reshape, transpose),
)
"""What a layer is drawn from; the more often it is listed, the likelier."""
