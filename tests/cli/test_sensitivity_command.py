"""The command that finds the weights that a pass should leave alone."""

import json
import os

import numpy as np
import pytest

from onnxcomp.report import plots
from onnxcomp.testing.small_model import parsed

DATA = ("--data", "samples.npz")
RECIPES = {
    "one.toml": '[[passes]]\npass = "cluster"\nbits = 2\nexclude = ["w3"]\n',
    "two.toml": '[[passes]]\npass = "simplify"\n[[passes]]\npass = "cluster"\n',
    "none.json": '{"passes": []}',
    "unknown.toml": '[[passes]]\npass = "clutser"\n',
}
PLAIN_FILES = {"model.onnx", "samples.npz", *RECIPES}


@pytest.fixture
def recipes(workplace):
    for name, text in RECIPES.items():
        (workplace / name).write_text(text)
    return workplace


def names(folder):
    return {each.name for each in folder.iterdir()}


def test_the_table(recipes, call):
    before = (recipes / "model.onnx").read_bytes()
    ran = call("sensitivity", "model.onnx", *DATA)
    assert (ran.code, ran.err) == (0, "")
    assert "sensitivity of model.onnx to quantize" in ran.out
    for heading in ("rank", "weight", "operators", "shape", "elements", "share"):
        assert heading in ran.out
    for words in ("SNR dB", "bytes saved", "48x32", "MatMul", "sum of errors", "all together"):
        assert words in ran.out
    assert "3 weights, each changed alone; " in ran.out
    assert names(recipes) == PLAIN_FILES
    assert (recipes / "model.onnx").read_bytes() == before


@pytest.mark.usefixtures("recipes")
def test_json_has_every_weight(call):
    options = (
        "--pass",
        "cluster",
        "--top",
        1,
        "--samples",
        8,
        "--seed",
        3,
        "--threads",
        1,
        "--provider",
        "cpu",
    )
    first, second = (
        call("sensitivity", "model.onnx", *DATA, "--json", *options).out for _ in range(2)
    )
    assert first == second
    found = json.loads(first)
    assert (found["source"], found["pass"], found["provider"]) == ("model.onnx", "cluster", "cpu")
    assert found["options"]["bits"] == 4
    assert found["samples"] <= 8
    ranked = found["weights"]
    assert [each["rank"] for each in ranked] == [1, 2, 3]
    assert sorted(each["name"] for each in ranked) == ["w1", "w2", "w3"]
    errors = [each["squared_error"] for each in ranked]
    assert errors == sorted(errors, reverse=True)
    assert found["sum_of_errors"] == pytest.approx(sum(errors))
    assert set(ranked[0]) == {
        *("rank", "name", "op_types", "shape", "elements", "share", "reason", "weight_error"),
        *("snr_db", "squared_error", "bytes_before", "bytes_after", "bytes_saved"),
        *("outputs", "failure"),
    }
    assert set(found["together"]) < set(ranked[0])
    output = ranked[0]["outputs"][0]
    assert output["name"] == "y"
    assert output["squared_error"] == pytest.approx(10 ** (-output["snr_db"] / 10))


@pytest.mark.usefixtures("recipes")
def test_top_limits_the_rows(call):
    ran = call("sensitivity", "model.onnx", *DATA, "--top", 2)
    assert sum(f"│ w{number} " in ran.out for number in (1, 2, 3)) == 2
    assert "2 of 3 weights, each changed alone; " in ran.out


@pytest.mark.usefixtures("recipes")
def test_a_recipe_of_one_pass(call):
    ran = call("sensitivity", "model.onnx", *DATA, "--recipe", "one.toml", "--json")
    assert (ran.code, ran.err) == (0, "")
    found = json.loads(ran.out)
    assert (found["options"]["bits"], found["options"]["exclude"]) == (2, ["w3"])
    assert sorted(each["name"] for each in found["weights"]) == ["w1", "w2"]


def test_any_pass(recipes, call, models):
    (recipes / "stored.onnx").write_bytes(models["stored"].source(recipes))
    feeds = models["stored"].feeds
    (recipes / "feeds").mkdir()
    for number, feed in enumerate(feeds):
        np.savez(f"feeds/{number}.npz", **feed)
    ran = call("sensitivity", "stored.onnx", "--data", "feeds", "--pass", "expand")
    assert (ran.code, ran.err) == (0, "")
    assert "identical" in ran.out


@pytest.mark.parametrize(("name", "start"), [("plot.png", b"\x89PNG"), ("plot.svg", b"<?xml")])
def test_a_plot(recipes, call, name, start):
    ran = call("sensitivity", "model.onnx", *DATA, "--plot", name)
    assert (ran.code, ran.err) == (0, "")
    assert (recipes / name).read_bytes().startswith(start)
    assert "all together" in ran.out
    assert names(recipes) == {*PLAIN_FILES, name}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "sensitivity needs --data: samples that the model is run on"),
        ([*DATA, "--pass", "clutser"], "unknown pass 'clutser'; did you mean 'cluster'?"),
        ([*DATA, "--recipe", "unknown.toml"], "unknown pass 'clutser'; did you mean 'cluster'?"),
        (
            [*DATA, "--recipe", "two.toml"],
            "recipe 'two.toml' has 2 passes; sensitivity takes exactly one",
        ),
        (
            [*DATA, "--recipe", "none.json"],
            "recipe 'none.json' has 0 passes; sensitivity takes exactly one",
        ),
        (
            [*DATA, "--recipe", "absent.toml"],
            "cannot read recipe 'absent.toml': no such file or directory",
        ),
        (
            [*DATA, "--pass", "cluster", "--recipe", "one.toml"],
            "--pass and --recipe exclude each other; give one",
        ),
        (
            [*DATA, "--plot", "plot.pdf"],
            "plot 'plot.pdf': give a name that ends in .png or .svg",
        ),
        (
            [*DATA, "--pass", "expand"],
            (
                "expand changes no weight of the model ('w2' is a plain tensor); "
                "choose another pass or options"
            ),
        ),
    ],
)
def test_wrong_usage(recipes, call, arguments, message):
    ran = call("sensitivity", "model.onnx", *arguments)
    assert (ran.code, ran.out, ran.err) == (2, "", f"error: {message}\n")
    assert names(recipes) == PLAIN_FILES


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["absent.onnx", *DATA], "cannot read 'absent.onnx': no such file or directory"),
        (
            ["model.onnx", "--data", "absent.npz"],
            "cannot read 'absent.npz': no such file or directory",
        ),
        (
            ["model.onnx", *DATA, "--plot", "none/plot.png"],
            "cannot write 'none/plot.png': no folder 'none'; make it first",
        ),
    ],
)
def test_what_cannot_be_read_or_written(recipes, call, arguments, message):
    ran = call("sensitivity", *arguments)
    assert (ran.code, ran.out, ran.err) == (1, "", f"error: {message}\n")
    assert names(recipes) == PLAIN_FILES


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_may_not_be_written(recipes, call):
    (recipes / "closed").mkdir(mode=0o500)
    ran = call("sensitivity", "model.onnx", *DATA, "--plot", "closed/plot.png")
    message = "cannot write 'closed/plot.png': folder 'closed' is not writable"
    assert (ran.code, ran.out, ran.err) == (1, "", f"error: {message}\n")


def test_an_unknown_provider(recipes, call):
    ran = call("sensitivity", "model.onnx", *DATA, "--provider", "abacus")
    assert (ran.code, ran.out) == (1, "")
    assert ran.err.startswith("error: provider 'abacus' is unknown (installed: ")
    assert names(recipes) == PLAIN_FILES


def test_without_matplotlib(recipes, call, monkeypatch):
    monkeypatch.setattr(plots, "find_spec", {}.get)
    ran = call("sensitivity", "model.onnx", *DATA, "--plot", "plot.png")
    message = "a plot needs matplotlib, which is not installed; pip install onnxcomp[plot]"
    assert (ran.code, ran.out, ran.err) == (2, "", f"error: {message}\n")
    assert call("sensitivity", "model.onnx", *DATA).code == 0
    assert names(recipes) == PLAIN_FILES


def test_only_labels(recipes, call):
    text = """
    <ir_version: 8, opset_import: ["" : 17]>
    labels (float[N, 32] x) => (int64[N, 1] label) {
        y = MatMul(x, w)
        label = ArgMax <axis = 1> (y)
    }
    """
    proto = parsed(text, {"w": np.eye(32, dtype=np.float32)})
    (recipes / "labels.onnx").write_bytes(proto.SerializeToString())
    ran = call("sensitivity", "labels.onnx", *DATA)
    assert (ran.code, ran.out) == (1, "")
    assert ran.err == (
        "error: no output of the model holds floats (label: int64), so no error can be told; "
        "make the tensor that they come from an output too\n"
    )
