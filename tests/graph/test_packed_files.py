"""Packed models come back to the byte, or not at all."""

import io
import os
import tarfile

import numpy as np
import onnx
import pytest
import zstandard

from onnxcomp import load_model, pack_model, unpack_model
from onnxcomp.errors import ModelError, OptionError
from onnxcomp.graph import packing


@pytest.fixture
def plain(tmp_path):
    return saved(tmp_path / "model.onnx")


@pytest.fixture
def external(tmp_path):
    return saved(tmp_path / "model.onnx", save_as_external_data=True, location="data/weights.bin")


def saved(path, **how):
    values = np.random.default_rng(0).integers(0, 16, (64, 64)).astype(np.float32)
    x, y = (onnx.helper.make_tensor_value_info(name, 1, ["n", 64]) for name in "xy")
    weight = onnx.numpy_helper.from_array(values, "w")
    node = onnx.helper.make_node("MatMul", ["x", "w"], ["y"])
    graph = onnx.helper.make_graph([node], "g", [x], [y], [weight])
    (path.parent / "data").mkdir(exist_ok=True)
    onnx.save_model(onnx.helper.make_model(graph), path, **how)
    return path


@pytest.fixture
def packed(plain, tmp_path):
    pack_model(plain, tmp_path / "model.onnx.zst")
    return tmp_path / "model.onnx.zst"


@pytest.fixture
def archived(external, tmp_path):
    assert len(pack_model(external, tmp_path / "model.tar.zst")) == 2
    return tmp_path / "model.tar.zst"


def test_round_trip(plain, packed, tmp_path):
    assert packed.stat().st_size < plain.stat().st_size / 4
    assert unpack_model(packed, tmp_path / "back.onnx") == [tmp_path / "back.onnx"]
    assert (tmp_path / "back.onnx").read_bytes() == plain.read_bytes()
    first = packed.read_bytes()
    shares = []
    pack_model(plain, packed, progress=shares.append)
    assert packed.read_bytes() == first
    assert shares[-1] == 1


def test_other_tools_open_it(plain, packed):
    parameters = zstandard.get_frame_parameters(packed.read_bytes())
    assert parameters.has_checksum
    assert parameters.content_size == plain.stat().st_size
    whole = zstandard.ZstdDecompressor().decompress(packed.read_bytes())
    assert whole == plain.read_bytes()


def test_data_files(external, archived, tmp_path):
    target = tmp_path / "elsewhere"
    target.mkdir()
    written = unpack_model(archived, target / "renamed.onnx")
    assert written == [target / "renamed.onnx", target / "data" / "weights.bin"]
    assert written[0].read_bytes() == external.read_bytes()
    assert written[1].read_bytes() == (tmp_path / "data" / "weights.bin").read_bytes()
    (weight,) = (each for each in load_model(written[0]).tensors().values() if each.name == "w")
    assert weight.values.shape == (64, 64)
    assert unpack_model(archived, target / "renamed.onnx") == written
    with (
        zstandard.open(archived) as stream,
        tarfile.open(fileobj=stream, mode="r|") as archive,
    ):
        assert archive.getnames() == ["model.onnx", "data/weights.bin"]


def test_an_archive_of_one_file(plain, tmp_path):
    pack_model(plain, tmp_path / "model.tar.zst")
    assert unpack_model(tmp_path / "model.tar.zst", tmp_path / "b.onnx") == [tmp_path / "b.onnx"]
    assert (tmp_path / "b.onnx").read_bytes() == plain.read_bytes()


def test_a_data_file_of_another_model_stays(archived, tmp_path):
    (tmp_path / "data" / "weights.bin").write_bytes(b"of another model")
    before = (tmp_path / "model.onnx").read_bytes()
    with pytest.raises(ModelError, match=r"weights.bin' is there with other content"):
        unpack_model(archived, tmp_path / "model.onnx")
    assert (tmp_path / "data" / "weights.bin").read_bytes() == b"of another model"
    assert (tmp_path / "model.onnx").read_bytes() == before


def test_a_model_named_like_its_data_file(tmp_path):
    model = saved(tmp_path / "model.onnx", save_as_external_data=True, location="weights.bin")
    pack_model(model, tmp_path / "model.tar.zst")
    (tmp_path / "weights.bin").unlink()
    with pytest.raises(ModelError, match="is where a data file of the model goes"):
        unpack_model(tmp_path / "model.tar.zst", tmp_path / "weights.bin")
    assert not (tmp_path / "weights.bin").exists()


def damaged(content):
    for length in (0, 1, 4, 20, len(content) // 2, len(content) - 5, len(content) - 1):
        yield content[:length], "is cut off|is damaged"
    for place in range(0, len(content), max(1, len(content) // 40)):
        yield content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :], "'is |' is "
    yield content + b"more", "has data after its end"
    yield content + content, "has data after its end"
    yield b"\x08\x0a model", "is damaged or not packed by zstd"


@pytest.mark.parametrize("which", ["packed", "archived"])
def test_damage_is_refused_and_the_old_file_stays(request, which, tmp_path):
    path = request.getfixturevalue(which)
    old = tmp_path / "old.onnx"
    old.write_bytes(b"the old file")
    content = path.read_bytes()
    files = sorted(tmp_path.rglob("*"))
    for wrong, message in damaged(content):
        path.write_bytes(wrong)
        with pytest.raises(ModelError, match=message) as caught:
            unpack_model(path, old)
        assert "\n" not in str(caught.value)
        assert old.read_bytes() == b"the old file"
    assert sorted(tmp_path.rglob("*")) == files


def archive_of(path, *names, kind=tarfile.REGTYPE):
    with zstandard.open(path, "wb") as stream, tarfile.open(fileobj=stream, mode="w|") as archive:
        for name in names:
            entry = tarfile.TarInfo(name)
            entry.type = kind
            archive.addfile(entry)


@pytest.mark.parametrize(
    ("names", "kind", "message"),
    [
        (["model.onnx", "../out.bin"], tarfile.REGTYPE, "leads out of the model's folder"),
        (["model.onnx", "/out.bin"], tarfile.REGTYPE, "leads out of the model's folder"),
        (["model.onnx"], tarfile.SYMTYPE, "is no archive of a model"),
    ],
)
def test_archives_that_lead_astray(tmp_path, names, kind, message):
    archive_of(tmp_path / "bad.tar.zst", *names, kind=kind)
    with pytest.raises(ModelError, match=message):
        unpack_model(tmp_path / "bad.tar.zst", tmp_path / "model.onnx")
    assert [each.name for each in tmp_path.iterdir()] == ["bad.tar.zst"]


def test_what_pack_refuses(external, tmp_path, monkeypatch):
    with pytest.raises(OptionError, match=r"ends in .tar.zst, for an archive"):
        pack_model(external, tmp_path / "model.onnx.zst")
    with pytest.raises(OptionError, match=r"has a name that ends in .zst$"):
        pack_model(external, external)
    with pytest.raises(ModelError, match=r"^cannot read .*absent.onnx': no such file"):
        pack_model(tmp_path / "absent.onnx", tmp_path / "model.onnx.zst")
    with pytest.raises(ModelError, match=r"^cannot write .*: no such file or directory$"):
        pack_model(external, tmp_path / "absent" / "model.tar.zst")
    old = tmp_path / "old.tar.zst"
    old.write_bytes(b"the old file")
    monkeypatch.setattr(packing, "_digest", lambda _path: b"another")
    with pytest.raises(ModelError, match=r"does not unpack to model.onnx; nothing written"):
        pack_model(external, old)
    assert old.read_bytes() == b"the old file"


def test_unpacking_over_itself(packed):
    os.link(packed, packed.with_name("link"))
    for name in (packed.name, "link"):
        with pytest.raises(OptionError, match="that is the packed model"):
            unpack_model(packed, packed.with_name(name))


def test_packing_over_the_model(plain):
    os.link(plain, plain.with_name("link.zst"))
    with pytest.raises(OptionError, match="that is packed; give another name"):
        pack_model(plain, plain.with_name("link.zst"))


def write_archive(path, members):
    """Pack members: names, and bytes or, of a sparse one, the size of its only hole."""
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as archive:
        for name, data in members:
            if isinstance(data, int):
                archive.fileobj.write(hole(name, data))
                continue
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    path.write_bytes(zstandard.compress(content.getvalue()))


def hole(name, size):
    """Return the header of a file of so many zeros, as GNU tar stores it: without any of them."""
    header = bytearray(512)
    octal = b"%011o\0" % size
    for place, text in (
        (0, name.encode()), (100, b"0000644\0"), (108, b"0000000\0" * 2),
        (124, b"00000000000\0" * 2), (148, b" " * 8), (156, b"S"), (257, b"ustar  \0"),
        (386, octal + b"00000000000\0"), (483, octal),
    ):  # fmt: skip
        header[place : place + len(text)] = text
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header)


MODEL, WEIGHTS = "model.onnx", "data/weights.bin"


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ([MODEL, WEIGHTS, ".bashrc"], "holds '.bashrc', which the model does not name; unpack it"),
        ([WEIGHTS, MODEL], "begins with is truncated or not an ONNX model"),
        ([MODEL], "file 'weights.bin' is not in 'bad.tar.zst/data'; pack the model again"),
        ([MODEL, WEIGHTS, "./" + WEIGHTS], "holds two files of one name; unpack it with tar"),
        ([MODEL, WEIGHTS, "d/" * 1500 + "x"], "leads through more than 64 folders"),
        ([MODEL, (WEIGHTS, 1 << 14)], "is no archive of a model and its data files"),
        ([MODEL, (WEIGHTS, b"short")], "has 5 bytes, but tensor 'w' needs 16384"),
    ],
)
def test_an_archive_is_the_model_and_its_data(external, tmp_path, monkeypatch, members, message):
    whole = (tmp_path / WEIGHTS).read_bytes()
    known = {MODEL: external.read_bytes()}
    pairs = [
        each if isinstance(each, tuple) else (each, known.get(each, whole)) for each in members
    ]
    target = tmp_path / "out"
    target.mkdir()
    monkeypatch.chdir(tmp_path)
    bad = tmp_path / "bad.tar.zst"
    write_archive(bad, pairs)
    with pytest.raises(ModelError, match=message) as caught:
        unpack_model(bad.name, target / "model.onnx")
    assert "\n" not in str(caught.value)
    assert not list(target.iterdir())


def test_a_model_packed_without_its_data(external, tmp_path):
    path = tmp_path / "model.onnx.zst"
    path.write_bytes(zstandard.compress(external.read_bytes()))
    old = tmp_path / "old.onnx"
    with pytest.raises(ModelError, match=r"'weights.bin' is not in .*; pack the model again$"):
        unpack_model(path, old)
    assert not old.exists()


def test_a_refused_target_leaves_no_folder(archived, tmp_path):
    (tmp_path / "out" / "model.onnx").mkdir(parents=True)
    with pytest.raises(ModelError, match=r"^cannot write .*: is a directory$"):
        unpack_model(archived, tmp_path / "out" / "model.onnx")
    assert [each.name for each in (tmp_path / "out").iterdir()] == ["model.onnx"]
