"""A model of one weight, and what `Cluster` makes of it."""

import numpy as np
import onnx

from onnxcomp import Context, load_model, weights
from onnxcomp.passes import Cluster

RANDOM = np.random.default_rng(0)
WEIGHT = RANDOM.standard_normal((48, 40), np.float32)
SPARSE = np.where(RANDOM.random((48, 40)) < 0.6, np.float32(0), WEIGHT)


def model_of(values, opset=17):
    """Return a model that multiplies with a weight, which an identity brings to light."""
    name = {np.float16: "float16", np.float64: "double"}.get(values.dtype.type, "float")
    rows, columns = values.shape
    proto = onnx.parser.parse_model(f"""
        <ir_version: 8, opset_import: ["" : {opset}]>
        lone ({name}[N, {rows}] x) => ({name}[N, {columns}] y) {{ y = MatMul(x, w) }}
        """)
    proto.graph.initializer.append(onnx.numpy_helper.from_array(values, "w"))
    return load_model(proto)


def clustered(values, opset=17, seed=0, **options):
    """Return the verdict on a weight, the weight afterwards, and the model."""
    model = model_of(values, opset)
    (verdict,) = Cluster(**options).apply(model, Context(seed=seed))
    (weight,) = weights(model)
    return verdict, weight.load(), model


def relative(values, decoded):
    return np.linalg.norm((values - decoded).astype(np.float64)) / np.linalg.norm(
        values.astype(np.float64)
    )
