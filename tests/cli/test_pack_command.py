"""`onnxcomp pack` and `unpack`."""


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
