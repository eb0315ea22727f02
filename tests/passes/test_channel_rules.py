"""For every operator with a rule, a model from which channels are removed through it.

In each, ``o`` is what the operator gives; it has to lose elements of an axis, and the outputs must
stay as they are.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import pytest
from channels import built, check_same, feed_of, pruned, run

from onnxcomp import load_model
from onnxcomp_passes.prune_channels import find_groups
from onnxcomp_passes.prune_channels.rules import RULES

BEFORE = "h = Conv(x, w)"
AFTER = "y = Conv(o, v)"
AROUND = {"w": (12, 4, 1, 1), "v": (3, 12, 1, 1)}
"""What stands around an operator that keeps 12 channels of planes."""

TOKENS = "float[2, 5, 8] x"
"""What is fed to operators on sequences."""

INT = np.int64


class Case(NamedTuple):
    """A model; by default an operator between two convolutions.

    Args:
        operator: What gives ``o``.
        weights: Constants, as shapes or arrays.
        axis: The axis of ``o`` that loses elements.
        before: What gives ``h``.
        after: What gives ``y``.
        inputs: What is fed.
        opset: The opset.
    """

    operator: str
    weights: Mapping[str, Any] = MappingProxyType({})
    axis: int = 1
    before: str = BEFORE
    after: str = AFTER
    inputs: str = "float[2, 4, 6, 6] x"
    opset: int = 17


def tokens(operator, weights, after="y = MatMul(o, v)", axis=2, opset=17):
    """Return a case between two products on sequences, (2, 5, 8) to (2, 5, 12)."""
    around = {"w": (8, 12), "v": (12, 3)}
    return Case(operator, around | weights, axis, "h = MatMul(x, w)", after, TOKENS, opset)


UNARY = {
    name: f"o = {name}(h)"
    for name in (
        *("Abs", "Atan", "Ceil", "Celu", "Cos", "Dropout", "Elu", "Erf", "Exp", "Floor"),
        *("HardSigmoid", "HardSwish", "Identity", "LeakyRelu", "Neg", "Relu", "Round", "Selu"),
        *("Sigmoid", "Sign", "Sin", "Softplus", "Softsign", "Tanh", "ThresholdedRelu"),
    )
} | {
    "Cast": "c = Cast <to = 11> (h) o = Cast <to = 1> (c)",
    "CastLike": "o = CastLike(h, x)",
    "Clip": "low = Constant <value = float {-1.0}> () o = Clip(h, low)",
    "Sqrt": "a = Abs(h) o = Sqrt(a)",
    "IsNaN": "n = IsNaN(h) o = Cast <to = 1> (n)",
    "Not": "z = Constant <value = float {0.0}> () b = Less(h, z) n = Not(b) o = Cast <to = 1> (n)",
}

CHANNEL = {"k": (12, 1, 1)}

BROADCASTING = {
    "Add of a constant": Case("o = Add(h, k)", CHANNEL),
    "Add of a branch": Case("a = Conv(x, u) o = Add(h, a)", {"u": (12, 4, 1, 1)}),
    "Add of what is broadcast": Case("m = ReduceMean <axes = [1]> (x) o = Add(h, m)"),
    "Mul of a gate": Case(
        "p = GlobalAveragePool(h) q = Conv(p, s) r = Relu(q) t = Conv(r, u) g = Sigmoid(t)"
        "o = Mul(h, g)",
        {"s": (4, 12, 1, 1), "u": (12, 4, 1, 1)},
    ),
    "Sub": Case("o = Sub(k, h)", CHANNEL),
    "Div": Case("o = Div(h, k)", CHANNEL),
    "Pow": Case("e = Constant <value = float {2.0}> () o = Pow(h, e)"),
    "Max": Case("o = Max(h, k)", CHANNEL),
    "Min": Case("o = Min(h, k)", CHANNEL),
    "Mean": Case("a = Relu(h) o = Mean(h, a, k)", CHANNEL),
    "Sum": Case("a = Relu(h) o = Sum(h, a, k)", CHANNEL),
    "PRelu": Case("o = PRelu(h, k)", CHANNEL),
    "Where": Case("b = Greater(h, k) a = Relu(h) o = Where(b, h, a)", CHANNEL),
    "Equal": Case("b = Equal(h, k) o = Cast <to = 1> (b)", CHANNEL),
    "And": Case(
        "b = Greater(h, k) c = Less(h, k) d = And(b, c) e = Or(d, b) f = Xor(e, c)"
        "o = Cast <to = 1> (f)",
        CHANNEL,
    ),
}

SCALES = {name: np.linspace(0.5, 2, 12, dtype=np.float32) for name in ("a", "b", "c", "d")}

NORMALISATIONS = {
    "BatchNormalization": Case("o = BatchNormalization(h, a, b, c, d)", SCALES),
    "InstanceNormalization": Case("o = InstanceNormalization(h, a, b)", SCALES),
    "GroupNormalization of channels": Case(
        "o = GroupNormalization <num_groups = 6> (h, a, b)", SCALES, opset=21
    ),
    "GroupNormalization as exporters write it": Case(
        "i = Reshape(h, s) j = InstanceNormalization(i, a, b) l = Shape(h) k = Reshape(j, l)"
        "m = Mul(k, c) o = Add(m, d)",
        {
            "s": np.array([0, 6, -1], INT),
            "a": (6,),
            "b": (6,),
            "c": (12, 1, 1),
            "d": (12, 1, 1),
        },
    ),
    "LayerNormalization": Case("o = LayerNormalization <axis = 2> (h, a)", {"a": (6, 6)}),
    "MeanVarianceNormalization": Case("o = MeanVarianceNormalization <axes = [2, 3]> (h)"),
}

CONVOLUTIONS = {
    "Conv": Case("o = Conv <pads = [1, 1, 1, 1]> (h, k, b)", {"k": (12, 12, 3, 3), "b": (12,)}),
    "Conv in groups": Case("o = Conv <group = 3> (h, k, b)", {"k": (12, 4, 1, 1), "b": (12,)}),
    "Conv in many groups": Case("o = Conv <group = 6> (h, k)", {"k": (12, 2, 1, 1)}),
    "depthwise Conv": Case("o = Conv <group = 12> (h, k, b)", {"k": (12, 1, 3, 3), "b": (12,)}),
    "depthwise Conv with two outputs a channel": Case(
        "o = Conv <group = 12> (h, k)", {"k": (24, 1, 3, 3), "v": (3, 24, 1, 1)}
    ),
    "ConvTranspose": Case("o = ConvTranspose(h, k, b)", {"k": (12, 12, 2, 2), "b": (12,)}),
    "ConvTranspose in groups": Case(
        "o = ConvTranspose <group = 3> (h, k, b)", {"k": (12, 4, 2, 2), "b": (12,)}
    ),
    "depthwise ConvTranspose": Case("o = ConvTranspose <group = 12> (h, k)", {"k": (12, 1, 2, 2)}),
}

GLOBAL = "y = Conv(o, v)"

POOLING = {
    "AveragePool": Case("o = AveragePool <kernel_shape = [2, 2]> (h)"),
    "MaxPool": Case("o = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (h)"),
    "LpPool": Case("o = LpPool <kernel_shape = [2, 2]> (h)"),
    "GlobalAveragePool": Case("o = GlobalAveragePool(h)"),
    "GlobalMaxPool": Case("o = GlobalMaxPool(h)"),
    "GlobalLpPool": Case("o = GlobalLpPool(h)"),
}

LINEAR = {"v": (12, 3)}

REDUCTIONS = {
    name: Case(f"o = {name} <axes = [2, 3]> (h)")
    for name in (
        *("ReduceL1", "ReduceL2", "ReduceLogSumExp", "ReduceMax", "ReduceMean", "ReduceMin"),
        *("ReduceProd", "ReduceSumSquare"),
    )
} | {
    "ReduceLogSum": Case("a = Abs(h) o = ReduceLogSum <axes = [2, 3]> (a)"),
    "ReduceSum": Case("o = ReduceSum(h, k)", {"k": np.array([-1, -2], INT)}),
    "ReduceMean by input": Case(
        "o = ReduceMean <keepdims = 0> (h, k)",
        {"k": np.array([2, 3], INT)} | LINEAR,
        after="y = MatMul(o, v)",
        opset=18,
    ),
    "ArgMax": Case("a = ArgMax <axis = 3> (h) o = Cast <to = 1> (a)"),
    "ArgMin": Case("a = ArgMin <axis = 2> (h) o = Cast <to = 1> (a)"),
    "CumSum": Case("o = CumSum(h, k)", {"k": np.array(2, INT)}),
    "TopK": Case("o, i = TopK <axis = 3> (h, k)", {"k": np.array([2], INT)}),
    "Softmax": Case("o = Softmax <axis = 3> (h)"),
    "LogSoftmax": Case("o = LogSoftmax <axis = 2> (h)"),
    "Hardmax": Case("o = Hardmax <axis = 2> (h)"),
    "LpNormalization": Case("o = LpNormalization <axis = 2> (h)"),
    "Trilu": Case("o = Trilu(h)"),
    "Softmax of an early opset": Case("o = Softmax <axis = 2> (h)", opset=11),
}

ARRANGING = {
    "Concat": Case(
        "a = Conv(x, u) b = Relu(h) o = Concat <axis = 1> (a, b)",
        {"u": (7, 4, 1, 1), "v": (3, 19, 1, 1)},
    ),
    "Concat with what stays": Case("o = Concat <axis = -3> (x, h)", {"v": (3, 16, 1, 1)}),
    "Concat with a constant": Case(
        "o = Concat <axis = 1> (k, h)", {"k": (2, 3, 6, 6), "v": (3, 15, 1, 1)}
    ),
    "Split": Case(
        "o, b = Split <axis = 1> (h, k)  c = Conv(b, u)",
        {"k": np.array([8, 4], INT), "v": (3, 8, 1, 1), "u": (3, 4, 1, 1)},
        after="d = Conv(o, v) y = Add(c, d)",
    ),
    "Split in equal parts": Case(
        "o, b = Split <axis = 1> (h)  c = Conv(b, u)",
        {"v": (3, 6, 1, 1), "u": (3, 6, 1, 1)},
        after="d = Conv(o, v) y = Add(c, d)",
    ),
    "Split in so many parts": Case(
        "o, b = Split <axis = 1, num_outputs = 2> (h)  c = Conv(b, u)",
        {"v": (3, 6, 1, 1), "u": (3, 6, 1, 1)},
        after="d = Conv(o, v) y = Add(c, d)",
        opset=18,
    ),
    "Split by attribute": Case(
        "o, b = Split <axis = 1, split = [8, 4]> (h)  c = Conv(b, u)",
        {"v": (3, 8, 1, 1), "u": (3, 4, 1, 1)},
        after="d = Conv(o, v) y = Add(c, d)",
        opset=11,
    ),
    "Slice": Case(
        "o = Slice(h, a, b, c)",
        {
            "a": np.array([3, 1], INT),
            "b": np.array([10, 99], INT),
            "c": np.array([1, 2], INT),
            "v": (3, 7, 1, 1),
        },
    ),
    "Slice from the end": Case(
        "o = Slice(h, a, b, c)",
        {
            "a": np.array([-9], INT),
            "b": np.array([-2], INT),
            "c": np.array([-3], INT),
            "v": (3, 7, 1, 1),
        },
    ),
    "Slice by attributes": Case(
        "o = Slice <axes = [1, 2], starts = [2, 0], ends = [9, -1]> (h)",
        {"v": (3, 7, 1, 1)},
        opset=9,
    ),
    "Gather": Case(
        "o = Gather <axis = 1> (h, k)",
        {"k": np.array([11, 3, -4, 0, 7], INT), "v": (3, 5, 1, 1)},
    ),
    "Gather of one": Case(
        "a = Reshape(h, s) o = Gather <axis = 3> (a, k)",
        {"s": np.array([0, 6, 2, -1], INT), "k": np.array(5, INT), "v": (3, 6, 1)},
    ),
    "Gather of an embedding": Case(
        "o = Gather(w, i)",
        {"w": (9, 12), "v": (12, 3)},
        2,
        "h = Identity(i)",
        "y = MatMul(o, v)",
        "int64[2, 5] i",
    ),
    "Transpose": Case(
        "t = Transpose <perm = [0, 2, 3, 1]> (h) o = Relu(t)",
        LINEAR,
        3,
        after="y = MatMul(o, v)",
    ),
    "Pad": Case("o = Pad(h, k)", {"k": np.array([0, 0, 1, 2, 0, 0, 1, 0], INT)}),
    "Pad of channels": Case(
        "o = Pad(h, k)", {"k": np.array([0, 2, 0, 0, 0, 1, 0, 0], INT), "v": (3, 15, 1, 1)}
    ),
    "Pad by attribute": Case(
        'o = Pad <mode = "reflect", pads = [0, 0, 1, 2, 0, 0, 1, 0]> (h)', opset=10
    ),
    "Pad of some axes": Case(
        "o = Pad(h, k, , a)",
        {"k": np.array([1, 2], INT), "a": np.array([3], INT)},
        opset=18,
    ),
    "Pad by numbers that only depend on constants": Case(
        "z = ConstantOfShape <value = int64[1] {0}> (n) c = Concat <axis = 0> (p, z)"
        "d = Reshape(c, m) e = Slice(d, s, t, q, s) f = Transpose <perm = [1, 0]> (e)"
        "g = Reshape(f, l) o = Pad(h, g)",
        {
            "n": np.array([4], INT),
            "p": np.array([1, 0, 2, 1], INT),
            "m": np.array([-1, 2], INT),
            "s": np.array([-1], INT),
            "t": np.array([-(1 << 62)], INT),
            "q": np.array([0], INT),
            "l": np.array([-1], INT),
        },
    ),
    "Resize": Case("o = Resize(h, , k)", {"k": np.array([1, 1, 2, 2], np.float32)}),
    "Resize to sizes": Case("o = Resize(h, , , k)", {"k": np.array([2, 12, 9, 9], INT)}),
    "Resize to computed sizes": Case(
        "a = Shape(h) b = Slice(a, p, q) c = Concat <axis = 0> (b, k) o = Resize(h, , , c)",
        {"p": np.array([0], INT), "q": np.array([2], INT), "k": np.array([9, 9], INT)},
    ),
    "Upsample": Case("o = Upsample(h, k)", {"k": np.array([1, 1, 2, 2], np.float32)}, opset=9),
    "DepthToSpace": Case("o = DepthToSpace <blocksize = 2> (h)", {"v": (3, 3, 1, 1)}),
    "DepthToSpace by columns": Case(
        'o = DepthToSpace <blocksize = 2, mode = "CRD"> (h)', {"v": (3, 3, 1, 1)}
    ),
    "SpaceToDepth": Case("o = SpaceToDepth <blocksize = 2> (h)", {"v": (3, 48, 1, 1)}),
    "Tile": Case("o = Tile(h, k)", {"k": np.array([1, 2, 1, 2], INT), "v": (3, 24, 1, 1)}),
    "Expand": Case(
        "p = GlobalAveragePool(h) o = Expand(p, k)", {"k": np.array([1, 12, 5, 5], INT)}
    ),
    "Expand to the shape of another": Case(
        "a = Conv(x, u) p = GlobalAveragePool(h) s = Shape(a) o = Expand(p, s)",
        {"u": (12, 4, 1, 1)},
    ),
    "Expand of what has one channel": Case(
        "m = ReduceMean <axes = [1]> (x) e = Expand(m, k) o = Mul(e, h)",
        {"k": np.array([1, 12, 1, 1], INT)},
    ),
    "ConstantOfShape": Case(
        "z = ConstantOfShape <value = float[1] {2.0}> (k) o = Mul(h, z)",
        {"k": np.array([1, 12, 1, 1], INT)},
    ),
    "ConstantOfShape of another's": Case(
        "s = Shape(h) z = ConstantOfShape <value = float[1] {2.0}> (s) o = Mul(h, z)"
    ),
    "Shape": Case("a = Conv(x, u) s = Shape(a) o = Reshape(h, s)", {"u": (12, 4, 1, 1)}),
}

RESHAPING = {
    "Flatten": Case("o = Flatten(h)", {"v": (432, 3)}, after="y = MatMul(o, v)"),
    "Flatten of pooled channels": Case(
        "p = GlobalAveragePool(h) o = Flatten(p)", LINEAR, after="y = MatMul(o, v)"
    ),
    "Reshape to vectors": Case(
        "o = Reshape(h, s)",
        {"s": np.array([0, -1], INT), "v": (432, 3)},
        after="y = MatMul(o, v)",
    ),
    "Reshape to literal vectors": Case(
        "o = Reshape(h, s)",
        {"s": np.array([-1, 432], INT), "v": (432, 3)},
        after="y = MatMul(o, v)",
    ),
    "Reshape to a computed shape": Case(
        "p = GlobalAveragePool(h) a = Shape(p) b = Gather <axis = 0> (a, i) c = Unsqueeze(b, j)"
        "d = Concat <axis = 0> (c, k) o = Reshape(p, d)",
        {"i": np.array(0, INT), "j": np.array([0], INT), "k": np.array([12], INT), "v": (12, 3)},
        after="y = MatMul(o, v)",
        opset=13,
    ),
    "Reshape of planes": Case(
        "r = Reshape(h, s) o = Transpose <perm = [0, 2, 1]> (r)",
        {"s": np.array([2, 12, 36], INT)} | LINEAR,
        2,
        after="y = MatMul(o, v)",
    ),
    "Reshape of channels in turn": Case(
        "a = Reshape(h, s) b = Transpose <perm = [0, 2, 1, 3, 4]> (a) o = Reshape(b, t)",
        {"s": np.array([2, 2, 6, 6, 6], INT), "t": np.array([2, 12, 6, 6], INT)},
    ),
    "Squeeze": Case(
        "p = GlobalAveragePool(h) o = Squeeze(p, k)",
        {"k": np.array([2, 3], INT)} | LINEAR,
        after="y = MatMul(o, v)",
    ),
    "Unsqueeze": Case(
        "o = Unsqueeze(h, k)",
        {"k": np.array([2], INT), "v": (3, 12, 1, 1, 1)},
    ),
}

PRODUCTS = {
    "MatMul": tokens("o = MatMul(h, k)", {"k": (12, 12)}),
    "MatMul in batches": tokens("o = MatMul(h, k)", {"k": (2, 12, 12)}),
    "MatMul from the left": Case(
        "t = Transpose <perm = [0, 2, 1]> (h) o = MatMul(k, t)",
        {"w": (8, 12), "k": (7, 12), "v": (7, 3)},
        1,
        "h = MatMul(x, w)",
        "u = Transpose <perm = [0, 2, 1]> (o) y = MatMul(u, v)",
        TOKENS,
    ),
    "MatMul of a weight that is turned": tokens(
        "t = Transpose <perm = [1, 0]> (k) o = MatMul(h, t)", {"k": (12, 12)}
    ),
    "MatMul with a vector": Case(
        "o = Add(h, b)",
        {"w": (8, 12), "b": (12,), "v": (12,)},
        2,
        "h = MatMul(x, w)",
        "y = MatMul(o, v)",
        TOKENS,
    ),
    "Gemm": Case(
        "o = Gemm <alpha = 0.5, transB = 1> (h, k, b)",
        {"w": (8, 12), "k": (9, 12), "b": (9,), "v": (3, 9)},
        1,
        "h = Gemm(x, w)",
        "y = Gemm <transB = 1> (o, v)",
        "float[2, 8] x",
    ),
    "Gemm, turned": Case(
        "t = Transpose <perm = [1, 0]> (h) o = Gemm <transA = 1> (t, k, b)",
        {"w": (8, 12), "k": (12, 9), "b": (1, 9), "v": (9, 3)},
        1,
        "h = Gemm(x, w)",
        "y = Gemm(o, v)",
        "float[2, 8] x",
    ),
    "Gemm with the weight first": Case(
        "o = Gemm <transB = 1> (k, h, b)",
        {"w": (8, 12), "k": (9, 12), "b": (9, 1), "v": (3, 9)},
        0,
        "h = Gemm(x, w)",
        "y = MatMul(v, o)",
        "float[2, 8] x",
    ),
    "Einsum": tokens('o = Einsum <equation = "bsi, io -> bso"> (h, k)', {"k": (12, 12)}),
    "Einsum to heads": tokens(
        'o = Einsum <equation = "...i,ihd->...hd"> (h, k)',
        {"k": (12, 5, 4), "v": (5, 4, 3)},
        'y = Einsum <equation = "bshd,hdo->bso"> (o, v)',
    ),
}

HEADS = np.array([0, 0, 4, 3], INT)


def attention(query, out="e = MatMul(c, p)"):
    return (
        f"{query}"
        "s = MatMul(q, k) a = Softmax <axis = -1> (s) o = MatMul(a, r)"
        "b = Transpose <perm = [0, 2, 1, 3]> (o) c = Reshape(b, m)"
        f"{out}"
    )


APART = attention(
    "q0 = MatMul(h, wq) q1 = Add(q0, bq) q2 = Reshape(q1, n)"
    "q = Transpose <perm = [0, 2, 1, 3]> (q2)"
    "k0 = MatMul(h, wk) k1 = Reshape(k0, n) k = Transpose <perm = [0, 2, 3, 1]> (k1)"
    "r0 = MatMul(h, wr) r1 = Reshape(r0, n) r = Transpose <perm = [0, 2, 1, 3]> (r1)"
)
TOGETHER = attention(
    "z = MatMul(h, wz) z1 = Reshape(z, n) z2 = Transpose <perm = [2, 0, 3, 1, 4]> (z1)"
    "q = Gather(z2, g0) kk = Gather(z2, g1) k = Transpose <perm = [0, 1, 3, 2]> (kk)"
    "r = Gather(z2, g2)"
)
SPLIT = attention(
    "z = MatMul(h, wz) z0, z1, z2 = Split <axis = -1> (z)"
    "q0 = Reshape(z0, n) q = Transpose <perm = [0, 2, 1, 3]> (q0)"
    "k0 = Reshape(z1, n) k = Transpose <perm = [0, 2, 3, 1]> (k0)"
    "r0 = Reshape(z2, n) r = Transpose <perm = [0, 2, 1, 3]> (r0)"
)
SHARED = attention(
    "q0 = MatMul(h, wq) q1 = Reshape(q0, n) q = Transpose <perm = [0, 2, 1, 3]> (q1)"
    "k0 = MatMul(h, wk) k1 = Reshape(k0, l) k2 = Transpose <perm = [0, 2, 1, 3]> (k1)"
    "k3 = Unsqueeze(k2, j) k4 = Expand(k3, i) k5 = Reshape(k4, g)"
    "k = Transpose <perm = [0, 1, 3, 2]> (k5)"
    "r0 = MatMul(h, wr) r1 = Reshape(r0, l) r2 = Transpose <perm = [0, 2, 1, 3]> (r1)"
    "r3 = Unsqueeze(r2, j) r4 = Expand(r3, i) r = Reshape(r4, g)"
)
WINDOWS = attention(
    "q0 = MatMul(h, wq) q1 = Reshape(q0, n) q2 = Transpose <perm = [0, 2, 1, 3]> (q1)"
    "q3 = Softmax(q2) q = Add(q3, q2)"
    "k0 = MatMul(h, wk) k1 = Reshape(k0, n) k = Transpose <perm = [0, 2, 3, 1]> (k1)"
    "r0 = MatMul(h, wr) r1 = Reshape(r0, n) r = Transpose <perm = [0, 2, 1, 3]> (r1)"
).replace("s = MatMul(q, k)", "t = MatMul(q, k) s = Add(t, bias)")
ATTENTION = {"m": np.array([0, 0, 12], INT), "p": (12, 12)}
PLACES = {f"g{place}": np.array(place, INT) for place in range(3)}

NETWORKS = {
    "attention": tokens(
        APART,
        ATTENTION | {"wq": (12, 12), "bq": (12,), "wk": (12, 12), "wr": (12, 12), "n": HEADS},
        "y = MatMul(e, v)",
        1,
    ),
    "attention with one weight": tokens(
        TOGETHER,
        ATTENTION | PLACES | {"wz": (12, 36), "n": np.array([0, 0, 3, 4, 3], INT)},
        "y = MatMul(e, v)",
        1,
    ),
    "attention that splits": tokens(
        SPLIT, ATTENTION | {"wz": (12, 36), "n": HEADS}, "y = MatMul(e, v)", 1
    ),
    "attention whose keys serve two heads each": tokens(
        SHARED,
        {
            "p": (24, 12),
            "wq": (12, 24),
            "wk": (12, 12),
            "wr": (12, 12),
            "m": np.array([0, 0, 24], INT),
            "n": np.array([0, 0, 8, 3], INT),
            "l": HEADS,
            "j": np.array([2], INT),
            "i": np.array([2, 4, 2, 5, 3], INT),
            "g": np.array([0, 8, 5, 3], INT),
        },
        "y = MatMul(e, v)",
        1,
    ),
    "attention in windows": tokens(
        WINDOWS,
        ATTENTION
        | {"wq": (12, 12), "wk": (12, 12), "wr": (12, 12), "n": HEADS, "bias": (1, 4, 5, 5)},
        "y = MatMul(e, v)",
        1,
    ),
    "a gated width": tokens(
        "a = MatMul(h, k) b = MatMul(h, l) s = Sigmoid(a) g = Mul(a, s) o = Mul(g, b)",
        {"k": (12, 20), "l": (12, 20), "v": (20, 3)},
    ),
    "a gated width in one weight": tokens(
        "a = MatMul(h, k) b, c = Split <axis = 2> (a) g = Sigmoid(b) o = Mul(g, c)",
        {"k": (12, 40), "v": (20, 3)},
    ),
}


def recurrent(name, gates, extra="", directions=1, **attributes):
    listed = "".join(f", {key} = {value}" for key, value in attributes.items())
    weights = {
        "w": (8, 12),
        "wx": (directions, gates * 8, 12),
        "wh": (directions, gates * 8, 8),
        "wb": (directions, 2 * gates * 8),
        "s": np.array([0, 0, -1], INT),
        "v": (8 * directions, 3),
    }
    after = "t = Transpose <perm = [0, 2, 1, 3]> (o) u = Reshape(t, s) y = MatMul(u, v)"
    text = f"o, n = {name} <hidden_size = 8{listed}> (h, wx, wh, wb{extra})"
    return Case(text, weights, 3, "h = MatMul(x, w)", after, TOKENS)


RECURRENT = {
    "LSTM": recurrent("LSTM", 4),
    "LSTM in both directions": recurrent("LSTM", 4, directions=2, direction='"bidirectional"'),
    "GRU": recurrent("GRU", 3, linear_before_reset=1),
    "RNN": recurrent("RNN", 1),
}
RECURRENT["LSTM with states and peepholes"] = recurrent("LSTM", 4, ", , h0, c0, pe")._replace(
    weights={**RECURRENT["LSTM"].weights, "h0": (1, 5, 8), "c0": (1, 5, 8), "pe": (1, 24)}
)

QUANTIZED = {
    "QuantizeLinear": Case(
        "q = QuantizeLinear(h, s, z) o = DequantizeLinear(q, s, z)",
        {"s": np.array(0.05, np.float32), "z": np.array(128, np.uint8)},
    ),
    "DequantizeLinear of a weight": Case(
        "k = DequantizeLinear <axis = 0> (q, s) o = Conv(h, k)",
        {
            "q": np.random.default_rng(0).integers(-99, 99, (12, 12, 1, 1)).astype(np.int8),
            "s": np.linspace(0.01, 0.02, 12, dtype=np.float32),
        },
    ),
}

CASES = (
    {name: Case(text) for name, text in UNARY.items()}
    | BROADCASTING
    | NORMALISATIONS
    | CONVOLUTIONS
    | POOLING
    | REDUCTIONS
    | ARRANGING
    | RESHAPING
    | PRODUCTS
    | NETWORKS
    | RECURRENT
    | QUANTIZED
)


def model_of(case):
    text = f"{case.before} {case.operator} {case.after}"
    weights = {
        name: given
        for name, given in (AROUND | dict(case.weights)).items()
        if f"{name}," in text or f"{name})" in text
    }
    return built(text, case.opset, case.inputs, **weights)


@pytest.mark.parametrize("name", CASES)
def test_channels_are_removed_through_the_operator(name):
    case = CASES[name]
    proto = model_of(case)
    groups, frozen, dead, result = pruned(proto)
    lost = {(part.tensor.name, part.axis) for group in groups for part in group.tensors}
    assert ("o", case.axis) in lost, frozen
    check_same(dead, result, feed_of(proto))


def test_group_normalization_with_scales_of_groups():
    """ONNX's checker calls it deprecated, and ONNX Runtime runs it."""
    text = f"{BEFORE} o = GroupNormalization <num_groups = 6> (h, a, b) {AFTER}"
    proto = built(text, 18, a=(6,), b=(6,), **AROUND)
    groups, _, dead, result = pruned(proto)
    assert [group.count for group in groups] == [6]
    before, after = (run(each, feed_of(proto))["y"] for each in (dead, result))
    np.testing.assert_allclose(before, after, rtol=0, atol=1e-5 * np.ptp(before))


STAYING = {
    "LRN": "o = LRN <size = 3> (h)",
    "Softmax": "o = Softmax <axis = 1> (h)",
    "LayerNormalization": "o = LayerNormalization <axis = 1> (h, k)",
    "ReduceMean": "m = ReduceMean <axes = [1]> (h) o = Mul(h, m)",
    "CumSum": "i = Constant <value = int64 {1}> () o = CumSum(h, i)",
    "TopK": "k = Constant <value = int64[1] {12}> () o, i = TopK <axis = 1> (h, k)",
    "ArgMax": "a = ArgMax <axis = 1> (h) c = Cast <to = 1> (a) o = Mul(c, h)",
    "NonZero": "n = NonZero(h) s = Shape(n) c = Cast <to = 1> (s) d = ReduceMax(c) o = Add(h, d)",
    "Size": "s = Size(h) c = Cast <to = 1> (s) o = Div(h, c)",
    "Dropout": "t = Cast <to = 9> (k) o = Dropout(h, , t)",
    "Cast": "s = Shape(h) c = Cast <to = 1> (s) d = ReduceMax(c) o = Div(h, d)",
    "MaxPool": "p, i = MaxPool <kernel_shape = [1, 1]> (h) j = Cast <to = 1> (i) o = Add(p, j)",
}


@pytest.mark.parametrize("name", STAYING)
def test_channels_that_are_mixed_without_a_weight_stay(name):
    given = {"LayerNormalization": {"k": (12, 6, 6)}, "Dropout": {"k": ()}}.get(name, {})
    model = load_model(built(f"{BEFORE} {STAYING[name]} {AFTER}", **AROUND, **given))
    groups, frozen = find_groups(model)
    assert not groups
    (reason,) = {each.reason for each in frozen if (each.name, each.axis) == ("w", 0)}
    assert name in reason


def test_every_rule_has_a_case():
    text = " ".join(case.operator for case in CASES.values()) + " ".join(STAYING.values())
    rare = {  # in the same rule as others that have a case
        *("Acos", "Acosh", "Asin", "Asinh", "Atanh", "BitShift", "BitwiseAnd", "BitwiseNot"),
        *("BitwiseOr", "BitwiseXor", "Cosh", "Gelu", "GreaterOrEqual", "IsInf", "LessOrEqual"),
        *(
            "Log",
            "Mish",
            "Mod",
            "RMSNormalization",
            "Reciprocal",
            "Shrink",
            "Sinh",
            "Swish",
            "Tan",
        ),
    }
    assert {name for name in RULES if f"{name}" not in text} <= rare
