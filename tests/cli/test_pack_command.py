"""`onnxcomp pack` and `unpack`."""

import zstandard


def test_there_and_back(workplace, call):
    ran = call("pack", "model.onnx", "-o", "model.onnx.zst")
    assert (ran.code, ran.out) == (0, "model.onnx.zst\n")
    assert ran.err.endswith("x smaller\n")
    ran = call("unpack", "model.onnx.zst", "-o", "back.onnx")
    assert (ran.code, ran.out, ran.err) == (0, "back.onnx\n", "")
    assert (workplace / "back.onnx").read_bytes() == (workplace / "model.onnx").read_bytes()


def test_mistakes(workplace, call):
    ran = call("pack", "model.onnx", "-o", "model.zip")
    assert ran.code == 2
    assert ran.err.startswith("error: output = 'model.zip': a packed model has a name that")
    ran = call("unpack", "model.onnx", "-o", "back.onnx")
    assert (ran.code, ran.out) == (1, "")
    assert ran.err == ("error: 'model.onnx' is damaged or not packed by zstd; download it again\n")
    assert not (workplace / "back.onnx").exists()


def test_what_is_packed_stays(workplace, call):
    whole = (workplace / "model.onnx").read_bytes()
    (workplace / "model.zst").write_bytes(whole)
    ran = call("pack", "model.zst", "-o", "model.zst")
    assert ran.code == 2
    assert ran.err == "error: output = 'model.zst': that is packed; give another name\n"
    assert (workplace / "model.zst").read_bytes() == whole


def test_something_else_than_a_model(workplace, call):
    (workplace / "hello.zst").write_bytes(zstandard.compress(b"hello"))
    ran = call("unpack", "hello.zst", "-o", "hello.onnx")
    assert ran.code == 1
    assert ran.err == "error: what 'hello.zst' holds is truncated or not an ONNX model\n"
    assert not (workplace / "hello.onnx").exists()
