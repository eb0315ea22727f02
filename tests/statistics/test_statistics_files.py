"""The file that keeps statistics."""

import stat
from pathlib import Path

import numpy as np
import pytest
from observed import built, floats, observed, reseed

from onnxcomp import load_model
from onnxcomp.errors import DataError
from onnxcomp.graph import copy_model
from onnxcomp.statistics import load_statistics

reseed()
MODEL = built(
    "a = MatMul (x, w)  b = Tanh (a)  y = MatMul (b, v)",
    "(float[N,4] x) => (float[N,3] y)",
    {"w": floats(4, 5), "v": floats(5, 3)},
)
FEEDS = [{"x": floats(3, 4)} for _ in range(12)]
DAMAGED = "not a statistics file, or damaged; make it again"


@pytest.fixture(scope="module")
def statistics():
    return observed(MODEL, FEEDS)


@pytest.fixture
def saved(statistics, tmp_path):
    path = tmp_path / "some statistics"
    statistics.save(path)
    return path


def assert_same(found, expected):
    assert found.model == expected.model
    assert list(found.inputs) == list(expected.inputs)
    assert list(found.ranges) == list(expected.ranges)
    pairs = [(found.inputs[name], each) for name, each in expected.inputs.items()]
    pairs += [(found.ranges[name], each) for name, each in expected.ranges.items()]
    for mine, theirs in pairs:
        arrays, wanted = mine.arrays(), theirs.arrays()
        assert set(arrays) == set(wanted)
        for name, array in arrays.items():
            assert np.array_equal(array, wanted[name])


def loaded(path):
    """Return statistics, or the message that says why there are none."""
    try:
        return load_statistics(path, MODEL)
    except DataError as error:
        return str(error)


def refusal(path, model=MODEL):
    with pytest.raises(DataError) as caught:
        load_statistics(path, model)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_there_and_back(saved, statistics):
    assert_same(load_statistics(saved, MODEL), statistics)


def test_what_was_read_can_be_merged(saved, statistics):
    found = load_statistics(saved, MODEL)
    found.merge(load_statistics(saved, MODEL))
    assert found.inputs["w"].moments.count == 2 * statistics.inputs["w"].moments.count
    assert np.array_equal(found.inputs["w"].moments.second, statistics.inputs["w"].moments.second)
    assert found.inputs["w"].held_out.columns.shape[1] == (
        2 * statistics.inputs["w"].held_out.columns.shape[1]
    )


def test_pairs_and_empty_layers_there_and_back(models, tmp_path):
    small = models["if_bodies"]
    model = load_model(small.proto)
    found = observed(model, [feed for feed in small.feeds if feed["flag"]])
    found.save(tmp_path / "saved")
    again = load_statistics(tmp_path / "saved", model)
    assert_same(again, found)
    assert sum(each.fit is None for each in again.inputs.values()) == 1


def test_names_with_spaces_and_slashes(tmp_path):
    model = copy_model(MODEL)
    for constant, name in zip(model.constants, ("1 a/b c", "input/0/moments"), strict=True):
        constant.name = name
    found = observed(model, FEEDS)
    found.save(tmp_path / "saved")
    assert_same(load_statistics(tmp_path / "saved", model), found)


def test_a_file_of_another_model(saved):
    other = copy_model(MODEL)
    other.constants[0].values = other.constants[0].values + np.float32(1)
    assert refusal(saved, other) == (
        f"the statistics in {str(saved)!r} are of another model; "
        "make them from this one with onnxcomp statistics"
    )


def test_a_renamed_model_is_the_same(saved, statistics):
    other = copy_model(MODEL)
    other.set_metadata("author", "another")
    assert_same(load_statistics(saved, other), statistics)


def test_a_file_of_another_version(saved):
    with np.load(saved) as file:
        arrays = dict(file)
    arrays["format"] = np.array(99)
    with saved.open("wb") as file:
        np.savez(file, **arrays)
    assert refusal(saved) == f"cannot read {str(saved)!r}: of another version; make it again"


def test_files_that_are_no_statistics(tmp_path):
    path = tmp_path / "file"
    missing = f"cannot read {str(path)!r}: no such file or directory"
    assert refusal(path) == missing
    damaged = f"cannot read {str(path)!r}: {DAMAGED}"
    for content in (b"", b"some text\n", b"PK\x03\x04", bytes(500)):
        path.write_bytes(content)
        assert refusal(path) == damaged
    with path.open("wb") as file:
        np.save(file, np.ones(3))
    assert refusal(path) == damaged
    with path.open("wb") as file:
        np.savez(file, x=np.ones(3))
    assert refusal(path) == damaged
    assert refusal(tmp_path) == f"cannot read {str(tmp_path)!r}: is a directory"


def test_arrays_that_are_missing(saved):
    with np.load(saved) as file:
        arrays = dict(file)
    for name in ("format", "model", "inputs", "ranges", "range/0/bins", "input/0/moments/second"):
        with saved.open("wb") as file:
            np.savez(file, **{key: each for key, each in arrays.items() if key != name})
        assert refusal(saved) == f"cannot read {str(saved)!r}: {DAMAGED}"


def test_any_damage_is_one_line_or_none(saved, statistics):
    random = np.random.default_rng(0)
    whole = saved.read_bytes()
    refused = 0
    for _ in range(150):
        spoiled = bytearray(whole)
        spoiled[random.integers(len(whole))] ^= random.integers(1, 256)
        saved.write_bytes(spoiled)
        found = loaded(saved)
        if isinstance(found, str):
            assert found == f"cannot read {str(saved)!r}: {DAMAGED}"
            refused += 1
        else:
            assert_same(found, statistics)
    assert refused > 50


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.999])
def test_a_truncated_file(saved, share):
    whole = saved.read_bytes()
    saved.write_bytes(whole[: int(share * len(whole))])
    assert refusal(saved) == f"cannot read {str(saved)!r}: {DAMAGED}"


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_the_old_file_stays_where_writing_fails(saved, statistics, monkeypatch, error):
    before = saved.read_bytes()

    def fail(file, **_):
        file.write(b"half of it")
        raise error

    monkeypatch.setattr(np, "savez_compressed", fail)
    expected = DataError if isinstance(error, OSError) else KeyboardInterrupt
    with pytest.raises(expected) as caught:
        statistics.save(saved)
    if expected is DataError:
        assert str(caught.value) == f"cannot write {str(saved)!r}: no space left on device"
    assert saved.read_bytes() == before
    assert [each.name for each in saved.parent.iterdir()] == [saved.name]


def test_a_folder_that_is_not_there(statistics, tmp_path):
    path = tmp_path / "absent" / "file"
    with pytest.raises(DataError) as caught:
        statistics.save(path)
    assert str(caught.value) == f"cannot write {str(path)!r}: no such file or directory"


def test_saving_over_a_file(saved, statistics):
    saved.chmod(0o640)
    statistics.save(saved)
    assert stat.S_IMODE(saved.stat().st_mode) == 0o640
    assert_same(load_statistics(saved, MODEL), statistics)


def test_a_new_file_may_be_read_like_any_other(saved, tmp_path):
    plain = tmp_path / "plain"
    plain.touch()
    assert saved.stat().st_mode == plain.stat().st_mode


def test_a_relative_path(statistics, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    statistics.save(Path("here.npz"))
    assert_same(load_statistics(Path("here.npz"), MODEL), statistics)


def test_the_same_file_each_time(saved, tmp_path):
    observed(MODEL, FEEDS).save(tmp_path / "again")
    assert (tmp_path / "again").read_bytes() == saved.read_bytes()
