"""The command that observes a model, and the files that it writes."""

import numpy as np
import pytest

from onnxcomp import load_model
from onnxcomp.statistics import load_statistics

QUICK = ("--no-bench", "--quiet")


@pytest.fixture
def halves(workplace):
    """Samples, enough of them to hold some out, whole and in two parts."""
    random = np.random.default_rng(0)
    x = random.standard_normal((96, 32)).astype(np.float32)
    for name, part in {"whole": x, "first": x[:40], "second": x[40:]}.items():
        np.savez(f"{name}.npz", x=part)
    return workplace


def relative(found, expected):
    return np.abs(found - expected).max() / np.abs(expected).max()


def test_the_path_is_all_that_stdout_carries(workplace, call):
    ran = call("statistics", "model.onnx", "-o", "seen.npz", "--data", "samples.npz")
    assert (ran.code, ran.out) == (0, "seen.npz\n")
    found = load_statistics(workplace / "seen.npz", load_model("model.onnx"))
    assert {"w1", "w2", "w3"} <= set(found.inputs)


def test_samples_limits_how_many_are_read(halves, call):
    call("statistics", "model.onnx", "-o", "few.npz", "--data", "whole.npz", "--samples", 8)
    call("statistics", "model.onnx", "-o", "all.npz", "--data", "whole.npz")
    model = load_model("model.onnx")
    counts = []
    for name in ("few.npz", "all.npz"):
        inputs = load_statistics(halves / name, model).inputs["w1"]
        held_out = 0 if inputs.held_out is None else inputs.held_out.columns.shape[1]
        counts.append((0 if inputs.moments is None else inputs.moments.count) + held_out)
    assert counts == [8, 96]


def test_two_parts_are_the_whole(halves, call):
    call("statistics", "model.onnx", "-o", "all.npz", "--data", "whole.npz")
    call("statistics", "model.onnx", "-o", "part.npz", "--data", "first.npz")
    ran = call(
        *("statistics", "model.onnx", "-o", "merged.npz", "--data", "second.npz"),
        *("--merge", "part.npz"),
    )
    assert (ran.code, ran.out) == (0, "merged.npz\n")
    model = load_model("model.onnx")
    merged, whole = (load_statistics(halves / name, model) for name in ("merged.npz", "all.npz"))
    assert list(merged.inputs) == list(whole.inputs)
    compared = 0
    for name, expected in whole.inputs.items():
        found = merged.inputs[name]
        assert (found.moments is None) == (expected.moments is None)
        if expected.moments is not None:
            assert found.moments.count == expected.moments.count
            assert relative(found.moments.mean, expected.moments.mean) < 1e-6
            assert relative(found.moments.second, expected.moments.second) < 1e-6
            compared += 1
    assert compared == 3
    part = load_statistics(halves / "part.npz", model)
    assert part.inputs["w1"].moments.count < whole.inputs["w1"].moments.count


def test_no_data(workplace, call):
    ran = call("statistics", "model.onnx", "-o", "seen.npz")
    assert (ran.code, ran.out) == (2, "")
    assert ran.err == "error: statistics needs --data: samples that the model is run on\n"
    assert not (workplace / "seen.npz").exists()


def test_no_output(workplace, call):
    ran = call("statistics", "model.onnx", "--data", "samples.npz")
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.splitlines()[-1] == "Error: Missing option '-o' / '--output'."
    assert {each.name for each in workplace.iterdir()} == {"model.onnx", "samples.npz"}


@pytest.fixture
def of_another_model(workplace, call, models):
    (workplace / "other.onnx").write_bytes(models["dynamic_batch"].source(workplace))
    call("statistics", "other.onnx", "-o", "other.npz", "--data", "samples.npz")
    assert (workplace / "other.npz").exists()
    return workplace


ANOTHER = (
    "error: the statistics in 'other.npz' are of another model; "
    "make them from this one with onnxcomp statistics\n"
)


def test_merging_with_another_model(of_another_model, call):
    ran = call(
        *("statistics", "model.onnx", "-o", "seen.npz", "--data", "samples.npz"),
        *("--merge", "other.npz"),
    )
    assert (ran.code, ran.out) == (1, "")
    assert ran.err.splitlines(keepends=True)[-1] == ANOTHER
    assert not (of_another_model / "seen.npz").exists()


def test_clustering_by_another_model(of_another_model, call):
    ran = call("cluster", "model.onnx", "-o", "out.onnx", "--statistics", "other.npz", *QUICK)
    assert (ran.code, ran.out, ran.err) == (1, "", ANOTHER)
    assert not (of_another_model / "out.onnx").exists()


ABSENT = "cannot read 'absent.npz': no such file or directory"
DAMAGED = "cannot read 'text.npz': not a statistics file, or damaged; make it again"


@pytest.mark.parametrize(("name", "message"), [("absent.npz", ABSENT), ("text.npz", DAMAGED)])
@pytest.mark.parametrize("name_of_command", ["cluster", "statistics"])
def test_files_that_cannot_be_read(workplace, call, name_of_command, name, message):
    (workplace / "text.npz").write_text("some text\n")
    option = {"cluster": "--statistics", "statistics": "--merge"}[name_of_command]
    more = QUICK if name_of_command == "cluster" else ("--data", "samples.npz")
    ran = call(name_of_command, "model.onnx", "-o", "out", option, name, *more)
    assert (ran.code, ran.out) == (1, "")
    assert ran.err.splitlines()[-1] == f"error: {message}"
    assert "Traceback" not in ran.err
    assert not (workplace / "out").exists()


def test_clustering_by_statistics(workplace, call):
    call("statistics", "model.onnx", "-o", "seen.npz", "--data", "samples.npz")
    written = []
    seen = ("--statistics", "seen.npz")
    # Data beside statistics is for comparing only.
    for more in ((), seen, (*seen, "--data", "samples.npz")):
        ran = call("cluster", "model.onnx", "-o", "out.onnx", "--bits", 3, *QUICK, *more)
        assert (ran.code, ran.out, ran.err) == (0, "out.onnx\n", "")
        written.append((workplace / "out.onnx").read_bytes())
    assert written[0] != written[1]
    assert written[1] == written[2]


def test_no_folder(workplace, call):
    ran = call("statistics", "model.onnx", "-o", "none/seen.npz", "--data", "samples.npz")
    assert (ran.code, ran.out) == (1, "")
    assert ran.err.splitlines()[-1].startswith("error: cannot write 'none/seen.npz': no ")
    assert "Traceback" not in ran.err
    assert {each.name for each in workplace.iterdir()} == {"model.onnx", "samples.npz"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["absent.onnx", "--data", "samples.npz"], "cannot read 'absent.onnx': "),
        (["model.onnx", "--data", "absent.npz"], "cannot read 'absent.npz': "),
        (["model.onnx", "--data", "names.npz"], "names.npz: 'z' is not an input of the model"),
    ],
)
def test_what_cannot_be_observed(workplace, call, arguments, message):
    np.savez("names.npz", z=np.zeros((4, 32), np.float32))
    ran = call("statistics", *arguments, "-o", "seen.npz")
    assert (ran.code, ran.out) == (1, "")
    assert ran.err.splitlines()[-1].startswith(f"error: {message}")
    assert "Traceback" not in ran.err
    assert not (workplace / "seen.npz").exists()
