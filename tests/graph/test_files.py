"""Files that are no model, and external data that is not where or what it should be."""

import json
import re
import types
import zlib

import numpy as np
import onnx
import onnx_graphsurgeon as gs
import pytest
from onnx import helper as h
from onnx import numpy_helper as nh

from onnxcomp.errors import ModelError
from onnxcomp.graph import load_model, model_bytes, save_model

PNG = b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR\x00\x00\x00\x01" + zlib.compress(b"pixels")


def plain(count=2, size=300):
    weights = [
        nh.from_array(np.full(size, number + 0.5, np.float32), f"w{number}")
        for number in range(count)
    ]
    nodes = [
        h.make_node("Add", [f"x{number}", each.name], [f"x{number + 1}"])
        for number, each in enumerate(weights)
    ]
    ends = [h.make_tensor_value_info(name, 1, [size]) for name in ("x0", f"x{count}")]
    graph = h.make_graph(nodes, "g", ends[:1], ends[1:], weights)
    return h.make_model(graph, opset_imports=[h.make_opsetid("", 17)], ir_version=8)


def external(folder, locations, padding=0):
    """Write a model whose weights lie, one after the other, at the given locations."""
    proto = plain(len(locations))
    contents = {}
    for tensor, location in zip(proto.graph.initializer, locations, strict=True):
        content = contents.setdefault(location, bytearray())
        content += bytes(padding)
        onnx.external_data_helper.set_external_data(
            tensor, location, len(content), len(tensor.raw_data)
        )
        content += tensor.raw_data
        tensor.ClearField("raw_data")
    for location, content in contents.items():
        (folder / location).write_bytes(content)
    path = folder / "model.onnx"
    path.write_bytes(proto.SerializeToString())
    return path


def refused(source, message):
    with pytest.raises(ModelError) as caught:
        load_model(source)
    assert str(caught.value) == message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("empty.onnx", b"", "is empty; export the model again"),
        ("truncated.onnx", None, "is truncated or not an ONNX model"),
        ("picture.onnx", PNG, "is truncated or not an ONNX model"),
        ("data.onnx", b'{"a": 1}', "is truncated or not an ONNX model"),
        ("text.onnx", b"Dear reader,\n", "is truncated or not an ONNX model"),
        ("tensor.onnx", b"\x08\x01", "is not an ONNX model: it has no graph"),
    ],
)
def test_files_that_are_no_model(tmp_path, name, content, reason):
    path = tmp_path / name
    path.write_bytes(plain().SerializeToString()[:-7] if content is None else content)
    refused(path, f"{path} {reason}")
    refused(path.read_bytes(), f"the given bytes {reason}")


def test_a_folder_and_a_missing_file(tmp_path):
    refused(tmp_path, f"cannot read {str(tmp_path)!r}: is a directory")
    refused(
        str(tmp_path / "no"), f"cannot read {str(tmp_path / 'no')!r}: no such file or directory"
    )


def test_something_else_altogether():
    with pytest.raises(ModelError, match="cannot read a model from dict; give a path, bytes, "):
        load_model({})


@pytest.mark.parametrize("location", ["../outside.data", "/etc/hostname", "a/../../b", ""])
def test_locations_outside_the_folder(tmp_path, location):
    (tmp_path / "outside.data").write_bytes(bytes(4000))
    folder = tmp_path / "folder"
    folder.mkdir()
    path = external(folder, ["inside.data"])
    proto = onnx.load(path, load_external_data=False)
    proto.graph.initializer[0].external_data[0].value = location
    path.write_bytes(proto.SerializeToString())
    refused(path, f"external data location {location!r} leads out of the model's folder; refused")


@pytest.mark.parametrize(
    ("location", "message"),
    [
        (
            "d/" * 1500 + "x",
            f"external data location '{'d/' * 20}'... leads through more than 64 folders; refused",
        ),
        ("d" * 300, f"external data file '{'d' * 40}'...: file name too long"),
    ],
)
def test_locations_that_no_file_can_have(tmp_path, location, message):
    path = external(tmp_path, ["inside.data"])
    proto = onnx.load(path, load_external_data=False)
    proto.graph.initializer[0].external_data[0].value = location
    path.write_bytes(proto.SerializeToString())
    refused(path, message)


def test_a_link_that_leads_out_of_the_folder(tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    path = external(folder, ["inside.data"])
    (folder / "inside.data").rename(tmp_path / "outside.data")
    (folder / "inside.data").symlink_to(tmp_path / "outside.data")
    refused(path, "external data location 'inside.data' leads out of the model's folder; refused")


def test_data_that_is_missing_or_short(tmp_path):
    path = external(tmp_path, ["a.data", "a.data"])
    (tmp_path / "a.data").write_bytes(bytes(2399))
    refused(
        path,
        "external data file 'a.data' has 2399 bytes, but tensor 'w1' needs 2400; "
        "the file is truncated",
    )
    (tmp_path / "a.data").unlink()
    refused(path, f"external data file 'a.data' is not in {str(tmp_path)!r}")


def test_data_of_the_wrong_length(tmp_path):
    path = external(tmp_path, ["a.data"])
    proto = onnx.load(path, load_external_data=False)
    entries = proto.graph.initializer[0].external_data
    next(each for each in entries if each.key == "length").value = "1196"
    path.write_bytes(proto.SerializeToString())
    refused(path, "tensor 'w0' has 1196 bytes of external data, but its type and shape need 1200")
    next(each for each in entries if each.key == "length").value = "many"
    path.write_bytes(proto.SerializeToString())
    refused(path, "tensor 'w0' has an external offset or length that is no number")


def test_data_of_the_wrong_length_inside_the_model():
    proto = plain()
    proto.graph.initializer[0].raw_data = bytes(8)
    (constant, _) = load_model(proto).constants
    with pytest.raises(ModelError, match="'w0' does not hold what its type and shape say"):
        _ = constant.values


@pytest.mark.parametrize("padding", [0, 1, 4096])
@pytest.mark.parametrize("locations", [["a.data", "a.data"], ["a.data", "b c.data"]])
def test_external_data(tmp_path, padding, locations):
    model = load_model(external(tmp_path, locations, padding))
    assert sorted(each.name for each in model.data_paths) == sorted(set(locations))
    for number, constant in enumerate(model.constants):
        assert constant.values.tolist() == [number + 0.5] * 300
        assert not constant.values.flags.writeable
        assert constant.nbytes == 1200
    assert onnx.ModelProto.FromString(model_bytes(model)) == plain()


def test_external_data_without_a_folder(tmp_path):
    data = external(tmp_path, ["a.data"]).read_bytes()
    refused(
        data,
        "tensor 'w0' has its data in 'a.data', but the model did not come from a file; "
        "pass the path of the model instead",
    )


def test_external_data_without_a_length(tmp_path):
    path = external(tmp_path, ["a.data"])
    proto = onnx.load(path, load_external_data=False)
    tensor = proto.graph.initializer[0]
    del tensor.external_data[:]
    tensor.external_data.add(key="location", value="a.data")
    path.write_bytes(proto.SerializeToString())
    assert load_model(path).constants[0].values.tolist() == [0.5] * 300


def test_the_callers_message_is_never_changed():
    proto = plain()
    before = proto.SerializeToString()
    model = load_model(proto)
    model.constants[0].values = np.zeros(300, np.float32)
    model.nodes[0].op = "Sub"
    model.set_metadata("a", "b")
    model_bytes(model)
    assert proto.SerializeToString() == before


def test_other_libraries_objects():
    proto = plain()
    onnx_ir = pytest.importorskip("onnx_ir")
    assert model_bytes(load_model(types.SimpleNamespace(model_proto=proto))) == model_bytes(
        load_model(proto)
    )
    from_ir = load_model(onnx_ir.from_proto(proto))
    from_gs = load_model(gs.import_onnx(proto))  # noqa: TID251 - a user's
    for model in (from_ir, from_gs):
        assert [node.op for node in model.nodes] == ["Add", "Add"]
        assert [each.values[0] for each in model.constants] == [0.5, 1.5]


def test_an_onnx_ir_model_with_external_data(tmp_path):
    onnx_ir = pytest.importorskip("onnx_ir")
    model = load_model(onnx_ir.load(external(tmp_path, ["a.data", "a.data"], 7)))
    assert [each.values[0] for each in model.constants] == [0.5, 1.5]
    assert onnx.checker.check_model(model_bytes(model)) is None


def test_metadata():
    model = load_model(plain())
    model.set_metadata("key", "old")
    model.set_metadata("key", json.dumps({"new": 1}))
    again = load_model(model_bytes(model))
    assert again.metadata == {"key": '{"new": 1}'}
    assert not re.search("old", str(again.header))


def test_saving_needs_a_folder(tmp_path):
    with pytest.raises(ModelError, match=r"^cannot write .*: no such file or directory$"):
        save_model(load_model(plain()), tmp_path / "no" / "model.onnx")
