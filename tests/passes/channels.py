"""Models from a few words, whose channels are made dead and removed."""

import numpy as np
import onnx
import onnxruntime
from onnx import numpy_helper

from onnxcomp import load_model
from onnxcomp.graph import model_proto
from onnxcomp_passes.prune_channels import find_groups, remove


def built(text, opset=17, inputs="float[2, 4, 6, 6] x", outputs="float[] y", **tensors):
    """Return a model; weights are given as shapes, for normal numbers, or as arrays."""
    header = f'<ir_version: 10, opset_import: ["" : {opset}]> g ({inputs}) => ({outputs})'
    proto = onnx.parser.parse_model(f"{header} {{ {text} }}")
    numbers = np.random.default_rng(0)
    for name, given in tensors.items():
        is_shape = isinstance(given, tuple)
        values = numbers.standard_normal(given).astype(np.float32) if is_shape else given
        proto.graph.initializer.append(numpy_helper.from_array(np.asarray(values), name))
    for name, value in run(proto, feed_of(proto)).items():
        (output,) = (each for each in proto.graph.output if each.name == name)
        kind = output.type.tensor_type.elem_type
        output.CopyFrom(onnx.helper.make_tensor_value_info(name, kind, value.shape))
    return proto


def feed_of(proto, seed=1):
    numbers = np.random.default_rng(seed)
    feed = {}
    for each in proto.graph.input:
        dims = [dim.dim_value or 3 for dim in each.type.tensor_type.shape.dim]
        dtype = onnx.helper.tensor_dtype_to_np_dtype(each.type.tensor_type.elem_type)
        is_float = np.dtype(dtype).kind == "f"
        feed[each.name] = (
            numbers.standard_normal(dims) if is_float else numbers.integers(0, 3, dims)
        ).astype(dtype)
    return feed


def kill(groups, kept):
    """Set to zero what consumes the channels that do not stay."""
    for group, mask in zip(groups, kept, strict=True):
        for part in group.weights:
            if any(use.role == "consumes" for use in part.uses):
                values = part.tensor.values.copy()
                np.moveaxis(values, part.axis, 0)[part.places[~mask].ravel()] = 0
                part.tensor.values = values


def pruned(proto, seed=0, share=0.4):
    """Return the groups, a model with dead channels, and the same without them."""
    model = load_model(proto)
    groups, frozen = find_groups(model)
    numbers = np.random.default_rng(seed)
    kept = []
    for group in groups:
        mask = numbers.random(group.count) >= share
        one, other = numbers.choice(group.count, 2, replace=False)
        mask[one], mask[other] = True, False
        kept.append(mask)
    kill(groups, kept)
    dead = model_proto(model)
    remove(model, groups, kept)
    return groups, frozen, dead, model_proto(model)


def run(proto, feed, optimize=False):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 4
    if not optimize:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(proto.SerializeToString(), options)
    names = [each.name for each in session.get_outputs()]
    return dict(zip(names, session.run(names, feed), strict=True))


def check_same(dead, result, *feeds):
    """Check that a result is valid, and gives what the model with dead channels gives."""
    onnx.checker.check_model(result, full_check=True)
    for feed in feeds:
        for optimize in (False, True):
            before, after = run(dead, feed, optimize), run(result, feed, optimize)
            for name, one in before.items():
                assert after[name].shape == one.shape
                bound = 1e-5 * max(np.ptp(one.astype(float)), 1e-3) if one.size else 0
                np.testing.assert_allclose(after[name], one, rtol=0, atol=bound)
