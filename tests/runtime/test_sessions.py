"""Sessions: what goes in, what comes out, and every way in which they fail."""

from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from onnxcomp.errors import DataError, ModelError
from onnxcomp.runtime import open_session

DOUBLE = """
<ir_version: 10, opset_import: ["" : 21]>
agraph (float[N, 3] x) => (float[N, 3] y, float[N, 3] z)
{ y = Add(x, x)  z = Neg(x) }
"""
ONES = np.ones((2, 3), np.float32)


def build(text):
    return onnx.parser.parse_model(text).SerializeToString()


def cast_model(to, source=TensorProto.FLOAT):
    x = helper.make_tensor_value_info("x", source, ["N", 3])
    y = helper.make_tensor_value_info("y", to, ["N", 3])
    graph = helper.make_graph([helper.make_node("Cast", ["x"], ["y"], to=to)], "g", [x], [y])
    opset = helper.make_opsetid("", 21)
    return helper.make_model(graph, opset_imports=[opset], ir_version=10).SerializeToString()


def test_ports_and_a_run():
    session = open_session(build(DOUBLE))
    (port,) = session.inputs
    assert (port.name, port.dtype, port.shape) == ("x", np.float32, ("N", 3))
    assert str(port) == "x tensor(float)[N, 3]"
    assert session.provider == "cpu"
    result = session.run({"x": ONES})
    assert list(result) == ["y", "z"]
    np.testing.assert_array_equal(result["y"], 2 * ONES)
    assert list(session.run({"x": ONES}, ["z"])) == ["z"]


def test_a_path_and_no_optimisation(tmp_path):
    path = tmp_path / "model.onnx"
    path.write_bytes(build(DOUBLE))
    session = open_session(path, threads=1, optimize=False)
    assert session.label == str(path)
    np.testing.assert_array_equal(session.run({"x": ONES})["z"], -ONES)


@pytest.mark.parametrize(
    ("model", "text"),
    [
        (
            b"garbage",
            "cannot load the model on cpu: Failed to load model because protobuf parsing failed",
        ),
        (b"", "cannot load the model on cpu: No graph was found in the protobuf"),
        (Path("absent.onnx"), "cannot read 'absent.onnx': no such file or directory"),
    ],
)
def test_a_model_that_does_not_load(model, text, capfd):
    with pytest.raises(ModelError) as caught:
        open_session(model)
    assert str(caught.value) == text
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("feed", "text"),
    [
        ({}, "feed: nothing for input 'x' (inputs: x)"),
        ({"x": ONES, "w": ONES}, "feed: 'w' is not an input of the model (inputs: x)"),
        ({"x": ONES[:, :2]}, "feed: input 'x' has shape [2, 2], expected [N, 3]"),
        ({"x": ONES[0]}, "feed: input 'x' has shape [3], expected [N, 3]"),
        ({"x": ONES.astype(float)}, "feed: input 'x' has dtype float64, expected float32"),
    ],
)
def test_a_feed_that_does_not_fit(feed, text):
    with pytest.raises(DataError) as caught:
        open_session(build(DOUBLE)).run(feed)
    assert str(caught.value) == text


def test_a_run_that_fails(capfd):
    session = open_session(
        build("""
        <ir_version: 10, opset_import: ["" : 21]>
        agraph (float[N, 3] x, int64[M] s) => (float[A, B] y) { y = Reshape(x, s) }
        """)
    )
    with pytest.raises(ModelError, match=r"^cannot run the model on cpu: .*Reshape") as caught:
        session.run({"x": ONES, "s": np.array([5, 7])})
    assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("to", "dtype"),
    [
        (TensorProto.BFLOAT16, ml_dtypes.bfloat16),
        (TensorProto.FLOAT8E4M3FN, ml_dtypes.float8_e4m3fn),
        (TensorProto.INT4, ml_dtypes.int4),
        (TensorProto.UINT4, ml_dtypes.uint4),
        (TensorProto.FLOAT16, np.float16),
        (TensorProto.BOOL, np.bool_),
    ],
)
def test_types_that_numpy_lacks_come_out(to, dtype):
    x = np.array([[1, 2, 3], [4, 0, 7]], np.float32) * (-1 if to == TensorProto.INT4 else 1)
    result = open_session(cast_model(to)).run({"x": x})["y"]
    assert result.dtype == dtype
    np.testing.assert_array_equal(result.astype(np.float32), x.astype(dtype).astype(np.float32))


def test_types_that_numpy_lacks_go_in():
    session = open_session(cast_model(TensorProto.FLOAT, TensorProto.BFLOAT16))
    x = np.array([[1, 2, 3]], ml_dtypes.bfloat16)
    result = session.run({"x": x})["y"]
    np.testing.assert_array_equal(result, x.astype(np.float32))


def test_a_sequence_becomes_an_array():
    session = open_session(
        build("""
        <ir_version: 10, opset_import: ["" : 21]>
        agraph (float[N, 3] x, float[M, 3] w) => (seq(float[A, 3]) y)
        { y = SequenceConstruct(x, w) }
        """)
    )
    assert session.outputs[0].dtype is None
    assert session.run({"x": ONES, "w": ONES})["y"].shape == (2, 2, 3)
    assert session.run({"x": ONES, "w": ONES[:1]})["y"].shape == (9,)


def test_a_list_of_maps_becomes_an_array_in_the_order_of_the_keys():
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3])
    element = helper.make_tensor_type_proto(TensorProto.FLOAT, [])
    kind = helper.make_sequence_type_proto(helper.make_map_type_proto(TensorProto.STRING, element))
    node = helper.make_node(
        "ZipMap", ["x"], ["y"], domain="ai.onnx.ml", classlabels_strings=["c", "a", "b"]
    )
    graph = helper.make_graph([node], "g", [x], [helper.make_value_info("y", kind)])
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("ai.onnx.ml", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10).SerializeToString()
    feed = {"x": np.array([[1, 2, 3], [4, 5, 6]], np.float32)}
    np.testing.assert_array_equal(open_session(model).run(feed)["y"], [[2, 3, 1], [5, 6, 4]])


def test_strings_go_through():
    session = open_session(
        build("""
        <ir_version: 10, opset_import: ["" : 21]>
        agraph (string[N] x) => (string[N] y) { y = Identity(x) }
        """)
    )
    assert session.inputs[0].dtype == np.object_
    assert session.run({"x": np.array(["a", "b"])})["y"].tolist() == ["a", "b"]


def test_the_same_bits_every_time():
    random = np.random.default_rng(0)
    w = onnx.numpy_helper.from_array(random.standard_normal((300, 200), np.float32), "w")
    model = onnx.parser.parse_model("""
        <ir_version: 10, opset_import: ["" : 21]>
        agraph (float[N, 300] x) => (float[N, 200] y) <float[300, 200] w> { y = MatMul(x, w) }
        """)
    model.graph.initializer.append(w)
    x = random.standard_normal((17, 300), np.float32)
    runs = [open_session(model.SerializeToString(), threads=2).run({"x": x})["y"] for _ in "12"]
    assert runs[0].tobytes() == runs[1].tobytes()
