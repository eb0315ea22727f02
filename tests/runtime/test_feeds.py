"""Every form of samples, and every way in which they do not fit."""

import io
import zipfile

import ml_dtypes
import numpy as np
import onnx
import pytest

from onnxcomp.errors import DataError, OptionError
from onnxcomp.runtime import Port, open_session, read_samples, samples_for

F32, I64 = np.dtype(np.float32), np.dtype(np.int64)
FORMS = "give one .npz, a .npy, a folder of .npz, or test_data_set_* folders"
X = Port("x", "tensor(float)", F32, ("N", 3))
MASK = Port("mask", "tensor(int64)", I64, ("N",))
RANDOM = np.random.default_rng(0).standard_normal((40, 3), np.float32)


def joined(samples, name="x"):
    return np.concatenate([feed[name] for feed in samples])


def sizes(samples, name="x"):
    return [len(feed[name]) for feed in samples]


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_one_npz(tmp_path, save):
    save(tmp_path / "data.npz", x=RANDOM, mask=np.arange(40))
    samples = read_samples(tmp_path / "data.npz", [X, MASK], 35)
    assert (samples.count, samples.synthetic, samples.batches) == (35, False, 3)
    assert sizes(samples) == [16, 16, 3]
    for _ in range(2):
        np.testing.assert_array_equal(joined(samples), RANDOM[:35])
        np.testing.assert_array_equal(joined(samples, "mask"), np.arange(35))
    assert sizes(samples.batched(1)) == [1] * 35


def test_one_npy_in_either_order(tmp_path):
    np.save(tmp_path / "data.npy", RANDOM)
    np.testing.assert_array_equal(joined(read_samples(str(tmp_path / "data.npy"), [X])), RANDOM)
    np.save(tmp_path / "data.npy", np.asfortranarray(RANDOM))
    np.testing.assert_array_equal(joined(read_samples(tmp_path / "data.npy", [X])), RANDOM)


def test_a_fixed_first_axis_sets_the_batch():
    one, eight = (Port("x", "tensor(float)", F32, (size, 3)) for size in (1, 8))
    assert sizes(read_samples({"x": RANDOM}, [one])) == [1] * 40
    samples = read_samples({"x": RANDOM}, [eight], 30)
    assert (samples.count, samples.batches, sizes(samples)) == (24, 3, [8, 8, 8])
    assert sizes(samples.batched(1)) == [8, 8, 8]
    with pytest.raises(DataError) as caught:
        read_samples({"x": RANDOM}, [eight], 5)
    assert str(caught.value) == "data: 5 samples, but the model takes 8 at a time"


def test_large_samples_are_fed_a_few_at_a_time():
    port = Port("x", "tensor(float)", F32, ("N", None))
    assert sizes(read_samples({"x": np.zeros((5, 1 << 20), np.float32)}, [port])) == [2, 2, 1]


def test_one_axis_more_makes_each_entry_a_whole_input():
    state = Port("state", "tensor(float)", F32, (2, 1, 4))
    rate = Port("rate", "tensor(int64)", I64, ())
    data = {
        "x": RANDOM[:3],
        "state": np.ones((3, 2, 1, 4), np.float32),
        "rate": np.array([7, 8, 9]),
    }
    feeds = list(read_samples(data, [X, state, rate]))
    assert [feed["rate"].item() for feed in feeds] == [7, 8, 9]
    assert {key: array.shape for key, array in feeds[0].items()} == {
        "x": (1, 3),
        "state": (2, 1, 4),
        "rate": (),
    }


def test_a_folder_of_npz_feeds_each_file_as_it_is(tmp_path):
    for length in (9, 10, 2):
        np.savez(tmp_path / f"feed{length}.npz", x=RANDOM[:length])
    assert sizes(read_samples(tmp_path, [X])) == [2, 9, 10]
    samples = read_samples(tmp_path, [X], 2)
    assert (samples.count, samples.batches, sizes(samples)) == (2, 2, [2, 9])


def test_onnx_test_data_sets(tmp_path):
    for place in (0, 2, 10):
        folder = tmp_path / f"test_data_set_{place}"
        folder.mkdir()
        mask = onnx.numpy_helper.from_array(np.array([place]), "mask")
        (folder / "input_0.pb").write_bytes(mask.SerializeToString())
        tensor = onnx.numpy_helper.from_array(RANDOM[:1])
        (folder / "input_1.pb").write_bytes(tensor.SerializeToString())
    samples = read_samples(tmp_path, [MASK, X])
    assert [feed["mask"].item() for feed in samples] == [0, 2, 10]
    assert read_samples(tmp_path / "test_data_set_2", [MASK, X]).count == 1
    (tmp_path / "test_data_set_0" / "input_1.pb").write_bytes(b"\x08\x01\x12\xff")
    with pytest.raises(
        DataError, match=r"^cannot read '.*input_1\.pb': not a tensor, or truncated"
    ):
        read_samples(tmp_path, [MASK, X])


def test_iterables_and_readers():
    feeds = [{"x": RANDOM[:2]}, {"x": RANDOM[:5]}]

    class Reader:
        def __init__(self):
            self.rest = iter(feeds)

        def get_next(self):
            return next(self.rest, None)

    for source in (feeds, iter(feeds), Reader()):
        samples = read_samples(source, [X])
        assert samples.count == 2
        assert sizes(samples) == sizes(samples) == [2, 5]
    assert read_samples(Reader(), [X], 1).count == 1


def test_widths_are_cast_and_kinds_are_not():
    wide = read_samples(
        [{"x": RANDOM.astype(float), "mask": np.arange(40, dtype=np.int8)}], [X, MASK]
    )
    (feed,) = wide
    assert (feed["x"].dtype, feed["mask"].dtype) == (F32, I64)
    with pytest.raises(DataError) as caught:
        read_samples({"x": np.arange(6).reshape(2, 3)}, [X])
    assert str(caught.value) == "data: input 'x' has dtype int64, expected float32"
    small = Port("small", "tensor(int8)", np.dtype(np.int8), ("N",))
    with pytest.raises(DataError) as caught:
        list(read_samples({"small": np.array([1, 300])}, [small]))
    assert str(caught.value) == "data: input 'small' has integers that int8 cannot hold"


def test_bfloat16_and_text_survive_a_file(tmp_path):
    half = Port("half", "tensor(bfloat16)", np.dtype(ml_dtypes.bfloat16), ("N",))
    text = Port("text", "tensor(string)", np.dtype(object), ("N",))
    np.savez(
        tmp_path / "data.npz", half=np.ones(2, ml_dtypes.bfloat16), text=np.array(["a", "bc"])
    )
    (feed,) = read_samples(tmp_path / "data.npz", [half, text])
    assert feed["half"].dtype == ml_dtypes.bfloat16
    assert feed["half"].astype(float).tolist() == [1, 1]
    assert feed["text"].tolist() == ["a", "bc"]


@pytest.mark.parametrize(
    ("arrays", "text"),
    [
        ({"x": RANDOM}, "nothing for input 'mask' (inputs: x, mask)"),
        (
            {"x": RANDOM, "mask": np.arange(40), "w": RANDOM},
            "'w' is not an input of the model (inputs: x, mask)",
        ),
        (
            {"x": RANDOM[:, :2], "mask": np.arange(40)},
            "input 'x' has shape [40, 2], expected [N, 3], with the samples along axis 0",
        ),
        (
            {"x": RANDOM, "mask": np.arange(39)},
            "input 'mask' has 39 samples, input 'x' has 40; axis 0 must count the same",
        ),
        ({"x": RANDOM[:0], "mask": np.arange(0)}, "no samples"),
        ({"x": RANDOM, "mask": np.ones(40)}, "input 'mask' has dtype float64, expected int64"),
    ],
)
def test_what_does_not_fit_in_an_npz(tmp_path, arrays, text):
    path = tmp_path / "data.npz"
    np.savez(path, **arrays)
    with pytest.raises(DataError) as caught:
        read_samples(path, [X, MASK])
    assert str(caught.value) == f"{path}: {text}"


def test_what_does_not_fit_in_a_folder(tmp_path):
    np.savez(tmp_path / "0.npz", x=RANDOM)
    np.savez(tmp_path / "1.npz", x=RANDOM[0])
    with pytest.raises(DataError) as caught:
        read_samples(tmp_path, [X])
    assert str(caught.value) == f"{tmp_path / '1.npz'}: input 'x' has shape [3], expected [N, 3]"


def test_inputs_that_differ_in_their_fixed_batch():
    pair = [Port("x", "tensor(float)", F32, (2, 3)), Port("y", "tensor(float)", F32, (4, 3))]
    with pytest.raises(DataError) as caught:
        read_samples({"x": RANDOM, "y": RANDOM}, pair)
    assert str(caught.value) == (
        "data: inputs take different numbers of samples at a time ('x' 2, 'y' 4);"
        " give a folder with one .npz a feed"
    )


def test_an_npy_for_two_inputs(tmp_path):
    path = tmp_path / "data.npy"
    np.save(path, RANDOM)
    with pytest.raises(DataError) as caught:
        read_samples(path, [X, MASK])
    assert str(caught.value) == (
        f"{path}: a .npy feeds one input, the model has 2 (x, mask); give an .npz"
    )


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("absent", "no such file or directory"),
        ("absent.npz", "no such file or directory"),
        (
            "data.csv",
            f"unknown form of data; {FORMS}",
        ),
        (
            "empty",
            f"holds no .npz and no test_data_set_* folder; {FORMS}",
        ),
    ],
)
def test_paths_that_hold_no_samples(tmp_path, name, text):
    (tmp_path / "empty").mkdir()
    (tmp_path / "data.csv").write_text("1,2")
    with pytest.raises(DataError) as caught:
        read_samples(tmp_path / name, [X])
    assert str(caught.value) == f"cannot read {str(tmp_path / name)!r}: {text}"


def test_truncated_files(tmp_path):
    path = tmp_path / "data.npy"
    np.save(path, RANDOM)
    whole = path.read_bytes()
    path.write_bytes(whole[:-4])
    with pytest.raises(DataError) as caught:
        read_samples(path, [X])
    assert str(caught.value) == f"cannot read {str(path)!r}: truncated; save it again"
    path.write_bytes(whole[:20])
    with pytest.raises(DataError) as caught:
        read_samples(path, [X])
    text = "not a .npy array, or truncated; save it again"
    assert str(caught.value) == f"cannot read {str(path)!r}: {text}"
    path = tmp_path / "data.npz"
    np.savez(path, x=RANDOM)
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(DataError) as caught:
        read_samples(path, [X])
    text = "not an .npz file, or truncated; save it again"
    assert str(caught.value) == f"cannot read {str(path)!r}: {text}"


def test_a_damaged_member(tmp_path):
    stored = io.BytesIO()
    np.save(stored, np.repeat(RANDOM, 5000, 0))
    path = tmp_path / "data.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x.npy", stored.getvalue())
    damaged = bytearray(path.read_bytes())
    damaged[-2000] ^= 0xFF
    path.write_bytes(damaged)
    with pytest.raises(DataError, match=r"^cannot read array 'x' of '.*data\.npz': damaged \("):
        list(read_samples(path, [X]))


def test_python_objects_are_refused(tmp_path):
    path = tmp_path / "data.npy"
    np.save(path, np.array([{}]), allow_pickle=True)
    with pytest.raises(DataError) as caught:
        read_samples(path, [X])
    text = "holds Python objects; save text with dtype=str"
    assert str(caught.value) == f"cannot read {str(path)!r}: {text}"


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ([], "data: no samples"),
        ([RANDOM], "data: feed 0 is ndarray, expected a dict of arrays by input name"),
        ([{"y": RANDOM}], "data: feed 0: 'y' is not an input of the model (inputs: x)"),
        (
            7,
            f"data: cannot read samples from int; {FORMS}",
        ),
    ],
)
def test_what_does_not_fit_in_memory(source, text):
    with pytest.raises(DataError) as caught:
        read_samples(source, [X])
    assert str(caught.value) == text


def test_a_limit_below_one():
    with pytest.raises(OptionError) as caught:
        read_samples({"x": RANDOM}, [X], 0)
    assert str(caught.value) == "samples must be at least 1, got 0"


def test_a_model_that_only_claims_a_free_batch_gets_one_sample_at_a_time():
    model = onnx.parser.parse_model("""
        <ir_version: 10, opset_import: ["" : 21]>
        agraph (float[N, 3] x) => (float[A] y) <int64[1] s = {3}> { y = Reshape(x, s) }
        """)
    session = open_session(model.SerializeToString())
    assert sizes(samples_for(session, {"x": RANDOM}, 4)) == [1, 1, 1, 1]


def test_samples_in_parts():
    samples = read_samples({"x": np.arange(23 * 3, dtype=np.float32).reshape(23, 3)}, [X])
    rest, held = samples.parted(5)
    assert (rest.count, held.count) == (19, 4)
    assert [feed["x"][0, 0] / 3 for feed in held.batched(1)] == [4, 9, 14, 19]
    assert held.numbers == (4, 9, 14, 19)
    assert held.parted(2)[0].numbers == (4, 14)
    assert sizes(rest) == [16, 3]
    assert sizes(rest.batched(8)) == [8, 8, 3]
    spread = rest.spread(4)
    assert spread.count == 4
    assert [feed["x"][0, 0] / 3 for feed in spread.batched(1)] == [0, 5, 11, 17]
    assert rest.spread(19) is rest


def test_small_samples_are_read_once(tmp_path):
    file = tmp_path / "samples.npz"
    np.savez(file, x=np.arange(10 * 3, dtype=np.float32).reshape(10, 3))
    samples = read_samples(file, [X]).spread(5)
    held = samples.held()
    file.unlink()
    assert [feed["x"][0, 0] / 3 for feed in held.batched(1)] == [0, 2, 4, 6, 8]
    assert sizes(held.batched(3)) == [3, 2]


def test_large_samples_stay_where_they_are(monkeypatch):
    monkeypatch.setattr("onnxcomp.runtime.samples.MOST_HELD_BYTES", 100)
    samples = read_samples({"x": np.zeros((10, 3), np.float32)}, [X])
    assert samples.held() is samples


def test_too_few_samples_to_hold_one_out():
    samples = read_samples({"x": np.zeros((4, 3), np.float32)}, [X])
    with pytest.raises(DataError, match="4 samples are too few to hold one of 5 out; give 5"):
        samples.parted(5)
