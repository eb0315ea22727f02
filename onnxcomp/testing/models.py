"""Every small model."""

from __future__ import annotations

from typing import TYPE_CHECKING

from onnxcomp.testing.nested_models import (
    classical,
    if_bodies,
    local_functions,
    loop_body,
    quantized,
    stored,
)
from onnxcomp.testing.plain_models import (
    constant_nodes,
    convnet,
    dynamic_batch,
    external_data,
    float16,
    mlp,
    no_weights,
    opset_9,
    overridable,
    recurrent,
    shared_bias,
    tied,
)

if TYPE_CHECKING:
    from onnxcomp.testing.small_model import SmallModel

BUILDERS = (
    mlp,
    convnet,
    tied,
    recurrent,
    if_bodies,
    loop_body,
    local_functions,
    float16,
    dynamic_batch,
    constant_nodes,
    external_data,
    opset_9,
    overridable,
    shared_bias,
    classical,
    quantized,
    stored,
    no_weights,
)


def small_models() -> tuple[SmallModel, ...]:
    """Build every small model anew; the same each time."""
    return tuple(build() for build in BUILDERS)
