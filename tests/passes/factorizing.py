"""Models of one layer each, factorized, and what they then give."""

import numpy as np
import onnx
from quantizing import feeds_of, numbers, weight

from onnxcomp import Context, load_model
from onnxcomp.graph import model_bytes
from onnxcomp.passes import Factorize


def factorized(proto, context=None, **options):
    """Return the file of a factorized model, and the verdicts by name."""
    model = load_model(proto)
    one = Factorize.model_validate({"allow": "size", "min_elements": 1, **options})
    verdicts = one.apply(model, context or Context())
    result = model_bytes(model)
    onnx.checker.check_model(result, full_check=True)
    return result, {each.name: each for each in verdicts}


def planned(proto, *plan, context=None):
    """Return the same of a model of which tensors became what is asked for, however large."""
    return factorized(proto, context, plan=plan, allow="speed")


def random_convolution(seed, axes=None):
    """Return a convolution of random form, feeds, and what it can become without loss."""
    random = np.random.default_rng([7, seed])
    axes = axes or int(random.choice([1, 2, 2, 2, 3]))
    groups = int(random.choice([1, 1, 2, 3]))
    kernel = [int(each) for each in random.integers(1, 5, axes)]
    inputs, outputs = (groups * int(each) for each in random.integers(2, 6, 2))
    attributes = {
        "kernel_shape": kernel,
        "group": groups,
        "strides": [int(each) for each in random.integers(1, 4, axes)],
        "dilations": [int(each) for each in random.integers(1, 3, axes)],
    }
    padding = random.choice(["pads", "SAME_UPPER", "SAME_LOWER", "VALID", "none"])
    if padding == "pads":
        attributes["pads"] = [int(each) for each in random.integers(0, 3, 2 * axes)]
    elif padding != "none":
        attributes["auto_pad"] = str(padding)
        # ONNX Runtime takes SAME with dilations, but not as the standard says.
        attributes["dilations"] = [1] * axes
    tensors = {"w": weight(outputs, inputs // groups, *kernel, seed=seed)}
    if random.random() < 0.5:
        tensors["b"] = numbers(outputs, seed=seed)
    shape = (2, inputs, *(int(each) for each in random.integers(9, 14, axes)))
    node = onnx.helper.make_node("Conv", ["x", *tensors], ["y"], name="n", **attributes)
    proto = _lone(node, tensors, shape)
    kind = str(random.choice(_full_kinds(kernel, inputs // groups, outputs // groups)))
    return proto, feeds_of(2, seed, x=shape), kind


def random_transposed(seed):
    """Return a transposed convolution of random form, feeds, and what it can become."""
    random = np.random.default_rng([9, seed])
    axes, groups = int(random.choice([1, 2, 2, 3])), int(random.choice([1, 1, 2, 3]))
    kernel = [int(each) for each in random.integers(1, 5, axes)]
    inputs, outputs = (int(each) for each in random.integers(2, 6, 2))
    strides = [int(each) for each in random.integers(1, 4, axes)]
    attributes = {
        "kernel_shape": kernel,
        "group": groups,
        "strides": strides,
        "dilations": [int(each) for each in random.integers(1, 3, axes)],
        "output_padding": [int(random.integers(each)) for each in strides],
    }
    if random.random() < 0.5:
        attributes["pads"] = [int(each) for each in random.integers(0, 2, 2 * axes)]
    tensors = {"w": weight(groups * inputs, outputs, *kernel, seed=seed)}
    if random.random() < 0.5:
        tensors["b"] = numbers(groups * outputs, seed=seed)
    shape = (2, groups * inputs, *(int(each) for each in random.integers(4, 8, axes)))
    node = onnx.helper.make_node("ConvTranspose", ["x", *tensors], ["y"], name="n", **attributes)
    full = f"channel:{min(inputs, outputs * int(np.prod(kernel)))}"
    return _lone(node, tensors, shape), feeds_of(2, seed, x=shape), full


def _full_kinds(kernel, inputs, outputs):
    """Return the kinds that a convolution can become, each with the rank that loses nothing."""
    taps = int(np.prod(kernel))
    kinds = [f"channel:{min(outputs, inputs * taps)}"]
    if taps > 1:
        kinds += [f"tucker:{outputs}", f"separable:{min(taps, outputs)}"]
    if kernel[0] > 1 and sum(size > 1 for size in kernel) > 1:
        kinds.append(f"spatial:{min(inputs * kernel[0], outputs * taps // kernel[0])}")
    return kinds


def random_product(seed):
    """Return a Gemm or MatMul of random form, feeds, and what it can become without loss."""
    random = np.random.default_rng([8, seed])
    rows, inputs, outputs = (int(each) for each in random.integers(2, 20, 3))
    place = int(random.integers(2))
    if random.random() < 0.5:
        return _random_gemm(random, seed, (rows, inputs, outputs), place)
    stack = [(), (), (3,), (2, 3)][int(random.integers(4))]
    batch = [(), (3,), (2, 3)][int(random.integers(3))] if not stack else (1,) * len(stack)
    tensor = numbers(*stack, *((outputs, inputs) if place == 0 else (inputs, outputs)), seed=seed)
    shape = (*batch, *((inputs, rows) if place == 0 else (rows, inputs)))
    names = ["w", "x"] if place == 0 else ["x", "w"]
    node = onnx.helper.make_node("MatMul", names, ["y"], name="n")
    return _lone(node, {"w": tensor}, shape), feeds_of(2, seed, x=shape), _full_pair(tensor)


def _full_pair(tensor):
    return f"pair:{min(tensor.shape[-2:])}"


def _random_gemm(random, seed, sizes, place):
    rows, inputs, outputs = sizes
    turned = [bool(each) for each in random.integers(2, size=2)]
    own, other = (
        ((outputs, inputs), (inputs, rows)) if place == 0 else ((inputs, outputs), (rows, inputs))
    )
    own = own[::-1] if turned[place] else own
    other = other[::-1] if turned[1 - place] else other
    tensors = {"w": numbers(*own, seed=seed)}
    names = ["w", "x"] if place == 0 else ["x", "w"]
    result = (outputs, rows) if place == 0 else (rows, outputs)
    bias = [None, (result[1],), (result[0], 1), (1,), result][int(random.integers(5))]
    if bias is not None:
        tensors["c"] = numbers(*bias, seed=seed)
        names.append("c")
    attributes = {"transA": int(turned[0]), "transB": int(turned[1])}
    attributes |= {"alpha": 0.5, "beta": -2.0} if random.random() < 0.5 else {}
    node = onnx.helper.make_node("Gemm", names, ["y"], name="n", **attributes)
    return _lone(node, tensors, other), feeds_of(2, seed, x=other), _full_pair(tensors["w"])


def _lone(node, tensors, shape):
    """Return a model of one operator; its output's shape is found."""
    kind = onnx.TensorProto.FLOAT
    given = onnx.helper.make_tensor_value_info("x", kind, shape)
    result = onnx.helper.make_tensor_value_info("y", kind, None)
    initializers = [onnx.numpy_helper.from_array(each, name) for name, each in tensors.items()]
    graph = onnx.helper.make_graph([node], "g", [given], [result], initializers)
    model = onnx.helper.make_model(
        graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8
    )
    return inferred(model)


def inferred(model):
    """Return a model with the shape of its first output as it follows from the rest."""
    model.graph.output[0].type.tensor_type.ClearField("shape")
    return onnx.shape_inference.infer_shapes(model)


def off(wanted, found):
    """Return the largest difference of outputs, relative to the largest value."""
    pairs = [
        (one[name], other[name]) for one, other in zip(wanted, found, strict=True) for name in one
    ]
    top = max(float(np.abs(one).max()) for one, _ in pairs) or 1.0
    return max(float(np.abs(one - other).max()) for one, other in pairs) / top
