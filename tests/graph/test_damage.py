"""Files with wrong bits are read or refused, in one line, and never end in a traceback."""

import numpy as np
import onnx
import pytest
from onnx import helper as h
from onnx import numpy_helper as nh

from onnxcomp.errors import ModelError, OnnxcompError
from onnxcomp.graph import load_model, model_bytes, weights

ENDS = [h.make_tensor_value_info(name, 1, ["n", 4]) for name in "xy"]
OPSETS = [h.make_opsetid("", 17), h.make_opsetid("f", 1)]


def product():
    weight = nh.from_array(np.arange(16, dtype=np.float32).reshape(4, 4), "w")
    node = h.make_node("MatMul", ["x", "w"], ["y"])
    graph = h.make_graph([node], "g", ENDS[:1], ENDS[1:], [weight])
    return h.make_model(graph, opset_imports=OPSETS[:1], ir_version=8)


def nested():
    """A body, a function, Constant nodes, attributes and metadata."""
    constant = h.make_node("Constant", [], ["k"], value=nh.from_array(np.ones(4, np.float32)))
    z = h.make_tensor_value_info("z", 1, ["n", 4])
    body = h.make_graph([constant, h.make_node("Add", ["x", "k"], ["z"])], "b", [], [z])
    nodes = [
        h.make_node("Constant", [], ["s"], value_ints=[1, 2]),
        h.make_node("If", ["c"], ["m"], then_branch=body, else_branch=body),
        h.make_node("LeakyRelu", ["m"], ["q"], alpha=0.5),
        h.make_node("F", ["q"], ["y"], domain="f"),
    ]
    inner = [constant, h.make_node("Add", ["a", "k"], ["b"])]
    function = h.make_function("f", "F", ["a"], ["b"], inner, OPSETS[:1])
    inputs = [ENDS[0], h.make_tensor_value_info("c", onnx.TensorProto.BOOL, [])]
    infos = [h.make_tensor_value_info("m", 1, ["n", 4])]
    graph = h.make_graph(nodes, "g", inputs, ENDS[1:], value_info=infos)
    proto = h.make_model(graph, opset_imports=OPSETS, ir_version=8, functions=[function])
    h.set_model_props(proto, {"key": "value"})
    return proto


def damaged(data, generator):
    if generator.random() < 0.2:
        return data[: generator.integers(len(data))]
    changed = bytearray(data)
    for place in generator.integers(len(data), size=generator.integers(1, 4)):
        changed[place] = generator.integers(256)
    return bytes(changed)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("make", [product, nested])
def test_random_damage(make):
    generator = np.random.default_rng(7)
    data = make().SerializeToString()
    reads, reasons = 0, []
    for _ in range(400):
        try:
            model = load_model(damaged(data, generator))
            assert all(each.unsuitable != "" for each in weights(model))
            assert model_bytes(model)
            reads += 1
        except OnnxcompError as error:
            reasons.append(str(error))
    assert reads > 20
    assert len(reasons) == 400 - reads
    assert all(each and "\n" not in each for each in reasons)


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        (b"MatMul", b"Mat\xfful", r"op_type b'Mat\\xfful' is not UTF-8"),
        (b"\x01x\x12", b"\xff\xff\x12", None),
        (b"\x10\x01B\x01w", b"\x10\x63B\x01w", "unknown element type 99"),
    ],
)
def test_what_is_damaged_is_said(tmp_path, old, new, reason):
    data = product().SerializeToString()
    assert old in data
    path = tmp_path / "model.onnx"
    path.write_bytes(data.replace(old, new))
    expected = "is truncated or not an ONNX model" if reason is None else f"is damaged: {reason}"
    with pytest.raises(ModelError, match=expected):
        load_model(path)


def test_an_unknown_type_of_an_input():
    proto = product()
    proto.graph.input[0].type.tensor_type.elem_type = 99
    with pytest.raises(ModelError, match=r"^the given bytes is damaged: unknown element type 99$"):
        load_model(proto.SerializeToString())


def test_a_constant_node_that_gives_nothing_is_a_plain_node():
    proto = nested()
    del proto.graph.node[0].output[:]
    assert onnx.ModelProto.FromString(model_bytes(load_model(proto))) == proto


def test_a_cycle_is_refused():
    proto = product()
    for given, made in (("b", "a"), ("a", "b")):
        proto.graph.node.append(h.make_node("Identity", [given], [made], name=f"makes_{made}"))
    proto.graph.node.append(h.make_node("Concat", ["w", "a"], ["c"], axis=0))
    with pytest.raises(ModelError, match="the graph has a cycle through node 'makes_a'"):
        load_model(proto)
