"""What a model holds is there again after an import and an export, to the last field."""

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import TensorProto as T
from onnx import helper as h
from onnx import numpy_helper as nh

from onnxcomp.graph import copy_model, load_model, model_bytes

FLOAT = T.FLOAT
TYPES = [
    "FLOAT", "UINT8", "INT8", "UINT16", "INT16", "INT32", "INT64", "BOOL", "FLOAT16", "DOUBLE",
    "UINT32", "UINT64", "COMPLEX64", "COMPLEX128", "BFLOAT16", "FLOAT8E4M3FN", "FLOAT8E4M3FNUZ",
    "FLOAT8E5M2", "FLOAT8E5M2FNUZ", "FLOAT8E8M0", "UINT4", "INT4", "FLOAT4E2M1", "UINT2", "INT2",
]  # fmt: skip


def value(name, shape=(2,), kind=FLOAT):
    return h.make_tensor_value_info(name, kind, shape)


def tensor(name, array):
    return nh.from_array(np.asarray(array, np.float32), name)


def model(nodes, inputs, outputs, weights=(), opset=21, ir_version=10, **more):  # noqa: PLR0917
    graph = h.make_graph(nodes, "main", inputs, outputs, weights)
    functions = more.pop("functions", [])
    opsets = [h.make_opsetid("", opset), *more.pop("opsets", [])]
    proto = h.make_model(graph, opset_imports=opsets, functions=functions, ir_version=ir_version)
    assert not more
    return proto


def assert_unchanged(proto):
    before = proto.SerializeToString(deterministic=True)
    loaded = load_model(proto)
    for each in (loaded, copy_model(loaded), copy_model(copy_model(loaded))):
        assert onnx.ModelProto.FromString(model_bytes(each)) == proto
    assert model_bytes(load_model(before)) == before
    assert proto.SerializeToString(deterministic=True) == before
    return loaded


def test_nested_bodies_with_shadowed_names_and_captured_weights():
    inner_then = h.make_graph(
        [h.make_node("Add", ["x", "w"], ["y"]), h.make_node("Mul", ["y", "own"], ["z"])],
        "then", [], [value("z")], [tensor("own", [3, 4])],
    )  # fmt: skip
    # The same names again, for other tensors: bodies may reuse a sibling's.
    inner_else = h.make_graph(
        [h.make_node("Sub", ["x", "own"], ["y"]), h.make_node("Mul", ["y", "w"], ["z"])],
        "else", [], [value("z")], [tensor("own", [5, 6])],
    )  # fmt: skip
    body = h.make_graph(
        [
            h.make_node("If", ["go"], ["next"], then_branch=inner_then, else_branch=inner_else),
            h.make_node("Identity", ["go"], ["still"]),
            h.make_node("Add", ["next", "state"], ["sum"]),
        ],
        "loop",
        [value("i", (), T.INT64), value("go", (), T.BOOL), value("state")],
        [value("still", (), T.BOOL), value("sum")],
    )
    proto = model(
        [h.make_node("Loop", ["n", "yes", "x"], ["out"], body=body)],
        [value("x"), value("n", (), T.INT64), value("yes", (), T.BOOL)],
        [value("out")],
        [tensor("w", [1, 2])],
    )
    onnx.checker.check_model(proto)
    loaded = assert_unchanged(proto)
    assert {each.name for scope in loaded.all_scopes() for each in scope.constants} == {"w", "own"}


def test_scan_body():
    body = h.make_graph(
        [h.make_node("Add", ["s", "x_t"], ["t"]), h.make_node("Mul", ["t", "w"], ["y_t"])],
        "scan", [value("s"), value("x_t")], [value("t"), value("y_t")],
    )  # fmt: skip
    node = h.make_node("Scan", ["s0", "xs"], ["s1", "ys"], body=body, num_scan_inputs=1)
    outputs = [value("s1"), value("ys", (3, 2))]
    inputs = [value("s0"), value("xs", (3, 2))]
    assert_unchanged(model([node], inputs, outputs, [tensor("w", [1, 2])]))


def test_functions_with_attribute_references():
    inner = h.make_node("LeakyRelu", ["t"], ["y"], "inner")
    inner.attribute.add(name="alpha", ref_attr_name="slope", type=onnx.AttributeProto.FLOAT)
    constant = h.make_node("Constant", [], ["c"])
    constant.attribute.add(name="value", ref_attr_name="bias", type=onnx.AttributeProto.TENSOR)
    function = h.make_function(
        "custom", "Leaky", ["x"], ["y"],
        [
            h.make_node("Constant", [], ["w"], value=tensor("w", [1, 2])),
            constant,
            h.make_node("Mul", ["x", "w"], ["m"]),
            h.make_node("Add", ["m", "c"], ["t"]),
            inner,
        ],
        [h.make_opsetid("", 21)], ["bias"],
        [h.make_attribute("slope", 0.1)],
    )  # fmt: skip
    function.overload = "first"
    function.doc_string = "leaky"
    function.value_info.append(value("t"))
    function.metadata_props.add(key="a", value="b")
    node = h.make_node("Leaky", ["x"], ["y"], domain="custom", bias=tensor("", [1, 1]))
    node.overload = "first"
    proto = model(
        [node], [value("x")], [value("y")],
        functions=[function], opsets=[h.make_opsetid("custom", 1)],
    )  # fmt: skip
    assert_unchanged(proto)


def test_sparse_initializers():
    sparse = h.make_sparse_tensor(
        nh.from_array(np.array([1, 2], np.float32), "s"),
        nh.from_array(np.array([1, 3], np.int64)),
        [4],
    )
    proto = model([h.make_node("Add", ["x", "s"], ["y"])], [value("x", (4,))], [value("y", (4,))])
    proto.graph.sparse_initializer.append(sparse)
    (constant,) = assert_unchanged(proto).constants
    assert constant.values.tolist() == [0, 1, 0, 2]


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("place", ["initializer", "node", "body"])
def test_every_element_type(kind, place):
    data_type = getattr(T, kind)
    dtype = h.tensor_dtype_to_np_dtype(data_type)
    array = np.array([[1, 0, 1], [1, 1, 0]]).astype(dtype)
    weight = nh.from_array(array, "w")
    assert weight.data_type == data_type
    node = h.make_node("Identity", ["w"], ["y"])
    constant = h.make_node("Constant", [], ["w"], value=weight)
    outputs = [value("y", (2, 3), data_type)]
    if place == "initializer":
        proto = model([node], [], outputs, [weight], 25, 13)
    elif place == "node":
        proto = model([constant, node], [], outputs, (), 25, 13)
    else:
        bodies = {
            "then_branch": h.make_graph([node], "t", [], outputs, [weight]),
            "else_branch": h.make_graph([constant, node], "e", [], outputs),
        }
        test = h.make_node("If", ["c"], ["z"], **bodies)
        proto = model(
            [test], [value("c", (), T.BOOL)], [value("z", (2, 3), data_type)], (), 25, 13
        )
    loaded = assert_unchanged(proto)
    (found, *_) = (each for scope in loaded.all_scopes() for each in scope.constants)
    assert found.dtype == dtype
    assert found.values.astype(dtype).tobytes() == array.tobytes()
    assert not found.values.flags.writeable


def test_typed_fields_instead_of_raw_data():
    weights = [
        h.make_tensor("f", T.FLOAT, [2], [1.5, np.nan]),
        h.make_tensor("h", T.FLOAT16, [2], [1.5, -0.0]),
        h.make_tensor("i", T.INT64, [2], [1, -5]),
        h.make_tensor("s", T.STRING, [2], [b"a", b"\xff\xfe"]),
        h.make_tensor("four", T.INT4, [3], [1, -8, 7]),
        h.make_tensor("empty", T.FLOAT, [0], []),
        h.make_tensor("scalar", T.FLOAT, [], [3.0]),
    ]
    weights[0].doc_string = "kept"
    weights[1].metadata_props.add(key="k", value="v")
    nodes = [h.make_node("Identity", [each.name], [f"{each.name}_"]) for each in weights]
    outputs = [value(f"{each.name}_", each.dims, each.data_type) for each in weights]
    loaded = assert_unchanged(model(nodes, [], outputs, weights))
    values = {each.name: each.values for each in loaded.constants}
    assert values["four"].astype(int).tolist() == [1, -8, 7]
    assert values["i"].tolist() == [1, -5]


def test_constant_nodes_stay_in_their_places():
    nodes = [
        h.make_node("Constant", [], ["a"], "first", value=tensor("t", [1, 2])),
        h.make_node("Add", ["x", "a"], ["b"]),
        h.make_node("Constant", [], ["c"], value_float=2.0),
        h.make_node("Constant", [], ["d"], value_ints=[1, 2]),
        h.make_node("Constant", [], ["s"], value_string="text"),
        h.make_node("Mul", ["b", "c"], ["e"]),
        h.make_node("Constant", [], ["unread"], value=tensor("", [9])),
        h.make_node("Constant", [], ["f"], value=tensor("", [9, 9])),
    ]
    nodes[0].doc_string = "kept"
    outputs = [value("e"), value("f"), value("d", (2,), T.INT64), value("s", (), T.STRING)]
    assert_unchanged(model(nodes, [value("x")], outputs))


def test_only_constant_nodes():
    nodes = [h.make_node("Constant", [], [name], value=tensor("", [1, 2])) for name in "ba"]
    assert_unchanged(model(nodes, [], [value("a"), value("b")]))


def test_initializers_that_nothing_reads_or_that_are_given_out():
    weights = [tensor("unused", [1]), tensor("given", [1, 2]), tensor("w", [3, 4])]
    nodes = [h.make_node("Add", ["x", "w"], ["y"])]
    proto = model(nodes, [value("x")], [value("given"), value("y"), value("x")], weights)
    assert_unchanged(proto)


def test_initializers_that_a_caller_may_override():
    proto = model(
        [h.make_node("Add", ["x", "w"], ["y"])],
        [value("w"), value("x")], [value("y")], [tensor("w", [1, 2])],
    )  # fmt: skip
    loaded = assert_unchanged(proto)
    assert [each.name for each in loaded.inputs] == ["x"]


def test_ir_version_3_and_opset_9():
    proto = model(
        [h.make_node("Add", ["x", "w"], ["y"])],
        [value("x"), value("w")], [value("y")], [tensor("w", [1, 2])], 9, 3,
    )  # fmt: skip
    assert_unchanged(proto)


def test_optional_sequence_and_map_types():
    kinds = {
        "sequence": h.make_sequence_type_proto(h.make_tensor_type_proto(FLOAT, None)),
        "optional": h.make_optional_type_proto(h.make_tensor_type_proto(FLOAT, ["n", 2])),
        "map": h.make_map_type_proto(T.STRING, h.make_tensor_type_proto(FLOAT, [])),
        "sparse": h.make_sparse_tensor_type_proto(FLOAT, [3]),
        "bare": onnx.TypeProto(),
    }
    inputs = [h.make_value_info(name, kind) for name, kind in kinds.items()]
    outputs = [h.make_value_info(f"{name}_", kind) for name, kind in kinds.items()]
    nodes = [h.make_node("Identity", [name], [f"{name}_"]) for name in kinds]
    assert_unchanged(model(nodes, inputs, outputs))


def test_what_describes_a_model():
    nodes = [
        h.make_node("Add", ["x", "x"], ["a"], "twice", doc_string="one"),
        h.make_node("Add", ["a", ""], ["", "y"], "twice"),
        h.make_node("Frob", ["y"], ["z"], domain="com.example", level=3, names=["p", "q"]),
        h.make_node("Add", ["z", "z"], ["out"], domain="ai.onnx"),
    ]
    nodes[0].metadata_props.add(key="k", value="v")
    configuration = nodes[0].device_configurations.add()
    configuration.configuration_id = "devices"
    nodes[2].attribute.append(h.make_attribute("bytes", b"\xff\x00\xfe"))
    nodes[2].attribute.append(h.make_attribute("many", [b"\xff", b"a"]))
    nodes[2].attribute.append(h.make_attribute("none", [], attr_type=onnx.AttributeProto.INTS))
    nodes[2].attribute.append(h.make_attribute("doc", 1.5, doc_string="kept"))
    nodes[2].attribute.append(h.make_attribute("nan", float("nan")))
    nodes[2].attribute.append(h.make_attribute("tensors", [tensor("t", [1])]))
    nodes[2].attribute.append(h.make_attribute("type", h.make_tensor_type_proto(FLOAT, [1])))
    graphs = [h.make_graph([h.make_node("Relu", ["x"], ["r"])], "g", [], [value("r")])]
    nodes[2].attribute.append(h.make_attribute("graphs", graphs))
    proto = model(nodes, [value("x")], [value("out")], opsets=[h.make_opsetid("com.example", 1)])
    proto.producer_name, proto.producer_version, proto.domain = "p", "1", "d"
    proto.model_version, proto.doc_string = 7, "text"
    proto.metadata_props.add(key="k", value="v")
    proto.configuration.add(name="devices", num_devices=2)
    proto.graph.doc_string = "graph"
    proto.graph.metadata_props.add(key="k", value="v")
    proto.graph.value_info.extend([value("a", ("n",)), value("nowhere", (7,)), value("y", None)])
    proto.graph.input[0].doc_string = "input"
    proto.graph.input[0].type.denotation = "IMAGE"
    proto.graph.input[0].type.tensor_type.shape.dim[0].denotation = "DATA_BATCH"
    annotation = proto.graph.quantization_annotation.add(tensor_name="a")
    annotation.quant_parameter_tensor_names.add(key="SCALE_TENSOR", value="s")
    training = proto.training_info.add()
    training.algorithm.CopyFrom(h.make_graph([], "train", [], [], [tensor("rate", [1])]))
    assert_unchanged(proto)


def test_a_field_that_nobody_knows_survives():
    proto = model([h.make_node("Relu", ["x"], ["y"])], [value("x")], [value("y")])
    unknown = b"\xaa\xfe\x03\x03new"  # field 8165, three bytes
    data = proto.SerializeToString(deterministic=True) + unknown
    assert model_bytes(load_model(data)) == onnx.ModelProto.FromString(data).SerializeToString()


def test_bfloat16_is_seen_as_such():
    array = np.array([1.5, -2], ml_dtypes.bfloat16)
    weight = nh.from_array(array, "w")
    proto = model(
        [h.make_node("Identity", ["w"], ["y"])], [], [value("y", (2,), T.BFLOAT16)], [weight]
    )
    (constant,) = load_model(proto).constants
    assert constant.dtype == ml_dtypes.bfloat16
    assert constant.nbytes == 4
