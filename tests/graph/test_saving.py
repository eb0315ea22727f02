"""Saving: all or nothing, and only files that are ours are removed."""

import fcntl
import os
import stat
import types
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper as h
from onnx import numpy_helper as nh

from onnxcomp.errors import ModelError
from onnxcomp.graph import (
    DecodedValues,
    copy_model,
    count_bytes,
    load_model,
    model_bytes,
    save_model,
    save_unchanged,
    saving,
)


def plain(start=0.5, size=512):
    weight = nh.from_array(np.full((size,), start, np.float32), "w")
    ends = [h.make_tensor_value_info(name, 1, [size]) for name in "xy"]
    graph = h.make_graph(
        [h.make_node("Add", ["x", "w"], ["y"])], "g", ends[:1], ends[1:], [weight]
    )
    return h.make_model(graph, opset_imports=[h.make_opsetid("", 17)], ir_version=8)


def external(folder, start=0.5):
    path = folder / "model.onnx"
    onnx.save_model(plain(start), path, save_as_external_data=True, location="theirs.data")
    return path


def output(path):
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return session.run(None, {"x": np.zeros(512, np.float32)})[0][0]


def names(folder):
    return sorted(each.name for each in folder.iterdir())


def test_inline(tmp_path):
    path = tmp_path / "model.onnx"
    assert save_model(load_model(plain()), path) == [path]
    assert names(tmp_path) == ["model.onnx"]
    assert path.read_bytes() == model_bytes(load_model(plain()))


def test_external_data_stays_external(tmp_path):
    model = load_model(external(tmp_path))
    written = save_model(model, tmp_path / "new.onnx")
    assert written[0].name == "new.onnx"
    assert written[1].name.startswith("new-")
    assert (
        onnx.load(written[0]).graph.initializer[0].raw_data
        == plain().graph.initializer[0].raw_data
    )
    assert output(written[0]) == 0.5
    onnx.checker.check_model(str(written[0]))


def test_saving_over_the_model_it_came_from(tmp_path):
    path = external(tmp_path)
    model = load_model(path)
    first = save_model(model, path)
    assert names(tmp_path) == sorted([first[0].name, first[1].name, "theirs.data"])
    assert output(path) == 0.5
    changed = copy_model(model)
    changed.constants[0].values = np.full(512, 2.5, np.float32)
    second = save_model(changed, path)
    assert names(tmp_path) == sorted([second[0].name, second[1].name, "theirs.data"])
    assert output(path) == 2.5
    again = load_model(path)
    again.set_metadata("a", "b")
    assert save_model(again, path) == second
    assert output(path) == 2.5
    # The first model still reads the file that it was loaded from.
    save_model(model, path)
    assert output(path) == 0.5
    assert len(names(tmp_path)) == 3


def test_from_external_to_inline_removes_our_data(tmp_path):
    path = external(tmp_path)
    save_model(load_model(path), path)
    save_model(load_model(plain(7)), path)
    assert names(tmp_path) == ["model.onnx", "theirs.data"]
    assert output(path) == 7


def test_data_that_differs_in_bytes_that_no_sample_holds(tmp_path, monkeypatch):
    path = external(tmp_path)
    monkeypatch.setattr(saving._DataWriter, "digest", "0" * 12)
    one = save_model(load_model(path), path)
    model = load_model(path)
    model.constants[0].values = np.full(512, 2.5, np.float32)
    two = save_model(model, path)
    assert one[1] != two[1]
    assert names(tmp_path) == sorted(["model.onnx", two[1].name, "theirs.data"])
    assert output(path) == 2.5
    assert save_model(load_model(path), path)[1] == one[1]
    assert output(path) == 2.5


@pytest.mark.parametrize("make", [lambda _folder: plain(), external])
def test_a_failed_save_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch, make):
    (tmp_path / "in").mkdir()
    model = load_model(make(tmp_path / "in"))
    path = tmp_path / "model.onnx"
    path.write_bytes(b"old")

    def fail(_path, _target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(ModelError, match=r"^cannot write .*: no space left on device$"):
        save_model(model, path)
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["in", "model.onnx"]


def test_permissions_of_a_new_file_respect_the_umask(tmp_path):
    before = os.umask(0o027)
    try:
        written = save_model(load_model(external(tmp_path)), tmp_path / "new.onnx")
    finally:
        os.umask(before)
    assert [stat.S_IMODE(each.stat().st_mode) for each in written] == [0o640, 0o640]


def test_permissions_of_a_replaced_file_are_kept(tmp_path):
    path = external(tmp_path)
    path.chmod(0o604)
    written = save_model(load_model(path), path)
    assert [stat.S_IMODE(each.stat().st_mode) for each in written] == [0o604, 0o604]


def test_a_link_is_followed(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link.onnx").symlink_to(tmp_path / "real" / "model.onnx")
    written = save_model(load_model(external(tmp_path)), tmp_path / "link.onnx")
    assert (tmp_path / "link.onnx").is_symlink()
    assert {each.parent.name for each in written} == {"real"}
    assert output(written[0]) == 0.5


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_may_not_be_written(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(ModelError, match=r"^cannot write .*: permission denied$"):
        save_model(load_model(plain()), tmp_path / "model.onnx")


def test_a_folder_in_the_place_of_the_file(tmp_path):
    (tmp_path / "model.onnx").mkdir()
    with pytest.raises(ModelError, match=r"^cannot write .*: is a directory$"):
        save_model(load_model(plain()), tmp_path / "model.onnx")
    assert names(tmp_path) == ["model.onnx"]


def test_names_with_odd_characters(tmp_path):
    path = tmp_path / "mödel (1)+.v2.onnx"
    save_model(load_model(external(tmp_path)), path)
    changed = load_model(path)
    changed.constants[0].values = np.full(512, 2.5, np.float32)
    save_model(changed, path)
    assert len(names(tmp_path)) == 4
    assert output(path) == 2.5


def test_weights_of_bodies_and_functions_lie_outside_too(tmp_path):
    proto = plain()
    branch = h.make_graph(
        [h.make_node("Add", ["x", "v"], ["z"])], "b", [],
        [h.make_tensor_value_info("z", 1, [512])],
        [nh.from_array(np.full(512, 4, np.float32), "v")],
    )  # fmt: skip
    proto.graph.node.append(
        h.make_node("If", ["c"], ["out"], then_branch=branch, else_branch=branch)
    )
    proto.graph.input.append(h.make_tensor_value_info("c", onnx.TensorProto.BOOL, []))
    proto.graph.output.append(h.make_tensor_value_info("out", 1, [512]))
    constant = h.make_node("Constant", [], ["k"], value=nh.from_array(np.ones(512, np.float32)))
    proto.functions.append(
        h.make_function(
            "f", "F", ["a"], ["b"], [constant, h.make_node("Add", ["a", "k"], ["b"])],
            [h.make_opsetid("", 17)],
        )
    )  # fmt: skip
    proto.opset_import.append(h.make_opsetid("f", 1))
    proto.graph.node.append(h.make_node("F", ["x"], ["f"], domain="f"))
    proto.graph.output.append(h.make_tensor_value_info("f", 1, [512]))
    path = tmp_path / "model.onnx"
    onnx.save_model(proto, path, save_as_external_data=True, location="theirs.data")
    model = load_model(path)
    function = model.local_functions[0]
    function.constants[0].values = np.full(512, 3, np.float32)
    written = save_model(model, tmp_path / "new.onnx")
    session = onnxruntime.InferenceSession(written[0], providers=["CPUExecutionProvider"])
    outputs = session.run(None, {"x": np.zeros(512, np.float32), "c": np.ones((), bool)})
    assert [each[0] for each in outputs] == [0.5, 4, 3]


def test_data_that_a_copy_of_the_model_reads_is_kept(tmp_path):
    path = external(tmp_path)
    first = save_model(load_model(path), path)
    (tmp_path / "backup.onnx").write_bytes(path.read_bytes())
    (tmp_path / "empty.onnx").touch()
    (tmp_path / "folder.onnx").mkdir()
    changed = load_model(path)
    changed.constants[0].values = np.full(512, 2.5, np.float32)
    second = save_model(changed, path)
    assert first[1].exists()
    assert output(tmp_path / "backup.onnx") == 0.5
    assert output(path) == 2.5
    save_model(load_model(plain()), path)
    assert first[1].exists()
    assert not second[1].exists()


def test_a_store_is_decoded_once_to_save_it(tmp_path, monkeypatch):
    model = load_model(plain())
    store = types.SimpleNamespace(shape=(512,), dtype=np.dtype(np.float32), loads=0)

    def load():
        store.loads += 1
        return np.full(512, 0.5, np.float32)

    store.load = load
    model.constants[0].values = DecodedValues(store)
    before = model_bytes(load_model(plain()))
    assert abs(count_bytes(model) - len(before)) < 8
    assert store.loads == 0
    monkeypatch.setattr(saving, "LARGEST_MESSAGE", 1024)
    written = save_model(model, tmp_path / "model.onnx")
    assert store.loads == 1
    assert output(written[0]) == 0.5
    assert model_bytes(model) == before


@pytest.mark.parametrize("size", [1, 30, 32, 255, 256, 4096, 1 << 19])
def test_bytes_are_counted_to_the_byte(size):
    model = load_model(plain(size=size))
    assert count_bytes(model) == len(model_bytes(model))


def test_weights_of_the_message_go_to_the_data_file_of_the_others(tmp_path):
    path = external(tmp_path)
    proto = onnx.load(path, load_external_data=False)
    proto.graph.initializer.append(nh.from_array(np.ones(512, np.float32), "v"))
    proto.graph.node.append(h.make_node("Add", ["y", "v"], ["z"]))
    proto.graph.output[0].name = "z"
    onnx.save_model(proto, path)
    written = save_model(load_model(path), path)
    assert len(written[0].read_bytes()) < 512 * 4
    assert output(path) == 1.5


def changed(model):
    other = copy_model(model)
    other.constants[0].values = np.full(512, 2.5, np.float32)
    return other


@pytest.fixture
def saved(tmp_path):
    """A model with a data file that we named, in a folder of its own, and the same elsewhere."""
    for name in ("source", "target"):
        (tmp_path / name).mkdir()
        save_model(load_model(external(tmp_path)), tmp_path / name / "model.onnx")
    return tmp_path / "source" / "model.onnx", tmp_path / "target" / "model.onnx"


def test_a_pipe_is_not_replaced(tmp_path):
    path = tmp_path / "model.onnx"
    os.mkfifo(path)
    model = load_model(plain())
    with pytest.raises(ModelError, match=r"model.onnx': it is a pipe; give the name of a file$"):
        save_model(model, path)
    with pytest.raises(ModelError, match="it is a pipe"), saving.replacing(path):
        pass
    assert stat.S_ISFIFO(path.stat().st_mode)
    assert names(tmp_path) == ["model.onnx"]


@contextmanager
def other_writer(folder):
    """Be alone in a folder as another process is."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


@pytest.mark.parametrize("how", ["changed", "unchanged"])
def test_writers_of_one_folder_wait_for_each_other(saved, how):
    source, target = saved
    model = load_model(source)
    before = names(target.parent)

    def write():
        if how == "changed":
            save_model(changed(model), target)
        else:
            save_unchanged(source, model, target)

    with ThreadPoolExecutor() as pool:
        with other_writer(target.parent):
            running = pool.submit(write)
            with pytest.raises(TimeoutError):
                running.result(0.3)
            found = [each for each in names(target.parent) if not each.endswith(".tmp")]
            assert found == before
            # What the waiting one may have seen is gone when it is its turn.
            for each in target.parent.glob("*.data"):
                each.unlink()
        running.result(30)
    assert output(target) == (2.5 if how == "changed" else 0.5)
    assert len(names(target.parent)) == 2


def without_locks(monkeypatch, how):
    if how == "Windows":
        monkeypatch.setattr(saving, "fcntl", None)
    else:
        monkeypatch.setattr(saving.fcntl, "flock", refuse)


def refuse(*_, **__):
    raise OSError(1, "Operation not permitted")


@pytest.mark.parametrize("how", ["Windows", "file system"])
def test_without_locks_old_data_is_left(saved, monkeypatch, how):
    _, target = saved
    old = names(target.parent)
    without_locks(monkeypatch, how)
    save_model(changed(load_model(target)), target)
    assert output(target) == 2.5
    assert set(old) < set(names(target.parent))


def test_old_data_that_cannot_be_removed_is_left(saved, monkeypatch):
    _, target = saved
    model = changed(load_model(target))
    old = names(target.parent)
    unlink = Path.unlink

    def sometimes(path, *, missing_ok=False):
        if path.suffix == ".data":
            refuse()
        unlink(path, missing_ok=missing_ok)

    monkeypatch.setattr(Path, "unlink", sometimes)
    save_model(model, target)
    assert output(target) == 2.5
    assert set(old) < set(names(target.parent))


@pytest.mark.parametrize("name", ["model.onnx", "model"])
def test_a_copy_over_itself_keeps_its_data(tmp_path, name):
    path = tmp_path / name
    written = save_model(load_model(external(tmp_path)), path)
    assert save_unchanged(path, load_model(path), path) == written
    assert output(path) == 0.5


def test_a_copy_that_fails_leaves_nothing(tmp_path):
    source = tmp_path / "model.onnx"
    (tmp_path / "deep" / "down").mkdir(parents=True)
    onnx.save_model(plain(), source, save_as_external_data=True, location="deep/down/w.bin")
    (tmp_path / "out" / "model.onnx").mkdir(parents=True)
    with pytest.raises(ModelError, match=r"^cannot write .*: is a directory$"):
        save_unchanged(source, load_model(source), tmp_path / "out" / "model.onnx")
    assert names(tmp_path / "out") == ["model.onnx"]


def test_a_copy_that_is_in_its_place_keeps_its_data(saved, tmp_path, monkeypatch):
    source, _ = saved
    model, path = load_model(source), tmp_path / "new" / "model.onnx"
    path.parent.mkdir()
    copy = saving._copy

    def ends_late(given, target):
        copy(given, target)
        if target == path:
            refuse()

    monkeypatch.setattr(saving, "_copy", ends_late)
    with pytest.raises(ModelError, match="operation not permitted"):
        save_unchanged(source, model, path)
    assert output(path) == 0.5
