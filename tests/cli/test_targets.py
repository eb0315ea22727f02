"""Where results may go: never over what the run reads, and never in the place of a device."""

import os
import socket
import stat

import numpy as np
import onnx
import pytest

from onnxcomp import load_model
from onnxcomp.graph import save_model

QUICK = ("--no-bench", "--no-validate", "--quiet")
CLUSTER = ("cluster", "model.onnx", *QUICK)
DATA = ("--data", "samples.npz")

EVALUATOR = "def score(predict):\n    return 1.0\n"
RECIPE = '{"passes": [{"pass": "cluster"}]}'


@pytest.fixture
def inputs(workplace, models):
    """A working directory with one of everything that a run may read."""
    model = models["mlp"].source(workplace)
    onnx.save_model(
        onnx.load_model_from_string(model),
        "outside.onnx",
        save_as_external_data=True,
        location="outside.json",
        size_threshold=0,
    )
    (workplace / "other.onnx").write_bytes(model)
    for name in ("recipe.json", "target.json"):
        (workplace / name).write_text(RECIPE, encoding="utf-8")
    (workplace / "score.py").write_text(EVALUATOR, encoding="utf-8")
    np.save("labels.npy", np.zeros(4, int))
    (workplace / "folder").mkdir()
    (workplace / "folder" / "one.npz").write_bytes((workplace / "samples.npz").read_bytes())
    np.savez("statistics.npz", x=np.zeros(1))
    (workplace / "link.onnx").symlink_to("samples.npz")
    os.link("model.onnx", "hard.onnx")
    return workplace


def contents(folder):
    return {str(each): each.read_bytes() for each in folder.rglob("*") if each.is_file()}


OVERWRITING = [
    ((*CLUSTER, *DATA, "-o", "samples.npz"), "-o 'samples.npz' would overwrite samples"),
    ((*CLUSTER, *DATA, "-o", "./samples.npz"), "-o 'samples.npz' would overwrite samples"),
    ((*CLUSTER, *DATA, "-o", "link.onnx"), "-o 'link.onnx' would overwrite samples"),
    (
        (*CLUSTER, "--data", "folder", "-o", "folder/one.npz"),
        "-o 'folder/one.npz' would overwrite samples",
    ),
    (
        (*CLUSTER, "--statistics", "statistics.npz", "-o", "statistics.npz"),
        "-o 'statistics.npz' would overwrite statistics",
    ),
    (
        (*CLUSTER, "--evaluate", "score.py:score", "-o", "score.py"),
        "-o 'score.py' would overwrite the evaluator",
    ),
    (
        ("run", "recipe.json", "model.onnx", *QUICK, "-o", "recipe.json"),
        "-o 'recipe.json' would overwrite the recipe",
    ),
    (
        ("run", "recipe.json", "model.onnx", *QUICK, "-o", "o.onnx", "--report", "recipe.json"),
        "--report 'recipe.json' would overwrite the recipe",
    ),
    (
        ("cluster", "outside.onnx", *QUICK, "-o", "outside.json"),
        "-o 'outside.json' would overwrite a data file of the model",
    ),
    (
        ("cluster", "outside.onnx", *QUICK, "-o", "o.onnx", "--report", "outside.json"),
        "--report 'outside.json' would overwrite a data file of the model",
    ),
    (
        ("factorize", "model.onnx", *QUICK, "--residual", "other.onnx", "-o", "other.onnx"),
        "-o 'other.onnx' would overwrite a model that a pass reads",
    ),
    (
        ("compress", "model.onnx", "--target", "target.json", "-o", "target.json"),
        "-o 'target.json' would overwrite the recipe of --target",
    ),
    (
        ("compress", "model.onnx", *DATA, "--labels", "labels.npy", "-o", "labels.npy"),
        "-o 'labels.npy' would overwrite the labels",
    ),
    (
        ("statistics", "model.onnx", *DATA, "-o", "model.onnx"),
        "-o 'model.onnx' would overwrite the model",
    ),
    (
        ("statistics", "model.onnx", *DATA, "--merge", "statistics.npz", "-o", "statistics.npz"),
        "-o 'statistics.npz' would overwrite statistics",
    ),
    (
        ("validate", "model.onnx", "outside.onnx", "--report", "outside.json"),
        "--report 'outside.json' would overwrite a data file of the model that is compared",
    ),
    (
        ("check", "model.onnx", "--against", "outside.onnx", "--report", "outside.json"),
        "--report 'outside.json' would overwrite a data file of the original",
    ),
    (
        ("sensitivity", "model.onnx", *DATA, "--recipe", "recipe.json", "--report", "recipe.json"),
        "--report 'recipe.json' would overwrite the recipe",
    ),
]


@pytest.mark.parametrize(("arguments", "message"), OVERWRITING)
def test_what_the_run_reads_stays(inputs, call, arguments, message):
    before = contents(inputs)
    ran = call(*arguments)
    line = f"error: {message}, which this run reads; give another name\n"
    assert (ran.code, ran.out, ran.err) == (2, "", line)
    assert contents(inputs) == before


def test_a_hard_link_to_the_model_is_the_model(inputs, call):
    before = contents(inputs)
    ran = call(*CLUSTER, "-o", "hard.onnx")
    message = "-o 'hard.onnx' is the model itself; give another name, or --force"
    assert (ran.code, ran.err) == (2, f"error: {message}\n")
    assert contents(inputs) == before


@pytest.mark.usefixtures("inputs")
def test_force_is_for_the_model_alone(call):
    ran = call(*CLUSTER, *DATA, "--force", "-o", "samples.npz")
    assert ran.code == 2
    assert ran.err.startswith("error: -o 'samples.npz' would overwrite samples")


@pytest.mark.usefixtures("inputs")
def test_the_report_does_not_replace_the_output(call):
    ran = call(*CLUSTER, "-o", "out.json", "--report", "./out.json")
    message = "--report 'out.json' is where -o goes; give another name"
    assert (ran.code, ran.err) == (2, f"error: {message}\n")


@pytest.mark.usefixtures("inputs")
def test_a_folder_called_like_a_preset_is_not_read(call, workplace):
    (workplace / "size").mkdir()
    (workplace / "size" / "out.onnx").write_bytes(b"an older result")
    ran = call("compress", "model.onnx", "--target", "size", "-o", "size/out.onnx", "--quiet")
    assert "would overwrite" not in ran.err


@pytest.mark.usefixtures("inputs")
def test_a_model_without_changes_replaces_itself_whatever_it_is_called(call, workplace):
    written = save_model(load_model("outside.onnx"), "outside.model")
    ran = call("simplify", "outside.model", *QUICK, "-o", "outside.model", "--force")
    assert (ran.code, ran.out, ran.err) == (0, "outside.model\n", "")
    assert all(each.is_file() for each in written)
    load_model(workplace / "outside.model")


@pytest.mark.parametrize("name", ["000.onnx", "000.toml"])
def test_a_search_keeps_what_a_folder_holds(inputs, call, name):
    (inputs / "front").mkdir()
    (inputs / "front" / name).write_bytes(b"of an earlier search")
    ran = call("search", "model.onnx", *DATA, "-o", "front")
    message = "folder 'front' holds models or recipes already; give another"
    assert (ran.code, ran.err) == (2, f"error: {message}\n")
    assert (inputs / "front" / name).read_bytes() == b"of an earlier search"


@pytest.fixture(params=["pipe", "socket", "device"])
def odd(request, workplace):
    """A kind of file that is no regular one, and a function that makes it."""

    def make(name):
        if request.param == "pipe":
            os.mkfifo(name)
        elif request.param == "socket":
            with socket.socket(socket.AF_UNIX) as bound:
                bound.bind(name)
        else:
            try:
                os.mknod(name, stat.S_IFCHR | 0o666, os.makedev(1, 3))
            except PermissionError:
                pytest.skip("only root may make a device")
        return stat.S_IFMT((workplace / name).stat().st_mode)

    return request.param, make


@pytest.mark.parametrize(
    ("target", "arguments"),
    [
        ("odd", (*CLUSTER, "-o", "odd")),
        ("odd.json", (*CLUSTER, "-o", "o.onnx", "--report", "odd.json")),
        ("odd.zst", ("pack", "model.onnx", "-o", "odd.zst")),
        ("odd", ("unpack", "model.zst", "-o", "odd")),
        ("odd", ("statistics", "model.onnx", *DATA, "-o", "odd")),
        ("odd", ("compress", "model.onnx", "-o", "odd")),
        ("odd.svg", ("sensitivity", "model.onnx", *DATA, "--plot", "odd.svg")),
        ("odd.json", ("validate", "model.onnx", "model.onnx", "--report", "odd.json")),
    ],
)
def test_what_is_no_regular_file_stays_what_it_is(workplace, call, odd, target, arguments):
    call("pack", "model.onnx", "-o", "model.zst")
    kind, make = odd
    made = make(target)
    ran = call(*arguments)
    message = f"cannot write {target!r}: it is a {kind}; give the name of a file"
    assert (ran.code, ran.out, ran.err) == (1, "", f"error: {message}\n")
    assert stat.S_IFMT((workplace / target).stat().st_mode) == made
    assert not (workplace / "o.onnx").exists()
