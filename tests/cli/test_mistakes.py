"""What is wrong with a call is said in one line, with the exit code that fits."""

import re

import numpy as np
import pytest

from onnxcomp.cli.commands import command

QUICK = ("--no-bench", "--quiet")
ABSENT = (
    "evaluator 'absent.py:good': no such file absent.py; "
    "give file.py:function or package.module:function"
)
SHAPES = "shapes.npz: input 'x' has shape [3, 5], expected [4, 32], with the samples along axis 0"


@pytest.fixture
def broken_files(workplace):
    model = (workplace / "model.onnx").read_bytes()
    files = {
        "empty.onnx": b"",
        "truncated.onnx": model[:5000],
        "picture.onnx": b"\x89PNG\r\n\x1a\n" + bytes(300),
        "unknown_operator.onnx": model.replace(b"MatMul", b"MatMux"),
        "unknown_pass.toml": b'[[passes]]\npass = "clutser"\n',
        "no_pass.toml": b"[[passes]]\nbits = 4\n",
        "unknown_option.toml": b'[[passes]]\npass = "cluster"\nbit = 3\n',
        "wrong_value.toml": b'[[passes]]\npass = "cluster"\nbits = 9\n',
        "other_keys.toml": b"[passes]\n",
        "text.toml": b"= 3\n",
        "text.json": b"{",
    }
    for name, content in files.items():
        (workplace / name).write_bytes(content)
    return workplace


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("missing.onnx", "cannot read 'missing.onnx': no such file or directory"),
        (".", "cannot read '.': is a directory"),
        ("empty.onnx", "empty.onnx is empty; export the model again"),
        ("truncated.onnx", "truncated.onnx is truncated or not an ONNX model"),
        ("picture.onnx", "picture.onnx is truncated or not an ONNX model"),
    ],
)
@pytest.mark.parametrize("name", ["cluster", "expand", "inspect", "validate", "bench"])
def test_no_model(broken_files, call, model, message, name):
    more = {"inspect": [], "validate": ["model.onnx"], "bench": ["model.onnx"]}
    ran = call(name, model, *more.get(name, ["-o", "out.onnx"]))
    assert (ran.code, ran.out, ran.err) == (1, "", f"error: {message}\n")
    assert not (broken_files / "out.onnx").exists()


def test_a_model_that_onnx_runtime_refuses(broken_files, call):
    ran = call("cluster", "unknown_operator.onnx", "-o", "out.onnx", *QUICK)
    assert (ran.code, ran.out) == (1, "")
    assert ran.err.startswith("error: cannot load unknown_operator.onnx on cpu: ")
    assert ran.err.count("\n") == 1
    assert not (broken_files / "out.onnx").exists()


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        ("absent.toml", "cannot read recipe 'absent.toml': no such file or directory"),
        ("unknown_pass.toml", "unknown pass 'clutser'; did you mean 'cluster'?"),
        ("no_pass.toml", "recipe entry {'bits': 4} does not say which 'pass' it is"),
        ("unknown_option.toml", "cluster: unknown option 'bit'; did you mean 'bits'?"),
        ("wrong_value.toml", "cluster: bits = 9: input should be less than or equal to 8"),
        ("other_keys.toml", "a recipe is a list of tables called 'passes', and nothing else"),
        (
            "text.toml",
            "recipe 'text.toml' is not TOML: Invalid statement (at line 1, column 1)",
        ),
    ],
)
def test_a_wrong_recipe(broken_files, call, recipe, message):
    ran = call("run", recipe, "model.onnx", "-o", "out.onnx", *QUICK)
    assert (ran.code, ran.out, ran.err) == (2, "", f"error: {message}\n")
    assert not (broken_files / "out.onnx").exists()


def test_a_recipe_that_is_not_json(broken_files, call):
    ran = call("run", "text.json", "model.onnx", "-o", "out.onnx", *QUICK)
    assert ran.code == 2
    assert ran.err.startswith("error: recipe 'text.json' is not JSON: ")
    assert not (broken_files / "out.onnx").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--bits", "9"], "Invalid value for '--bits': 9 is not in the range 1<=x<=8."),
        (["--bits", "x"], "Invalid value for '--bits': 'x' is not a valid integer range."),
        (["--clusters", "1"], "Invalid value for '--clusters': 1 is not in the range 2<=x<=256."),
        (["--width", "3"], "Invalid value for '--width': 3 is not one of '1', '2', '4'."),
        (["--samples", "0"], "Invalid value for '--samples': 0 is not in the range x>=1."),
        (["--seed", "-1"], "Invalid value for '--seed': -1 is not in the range x>=0."),
        (["--nothing"], "No such option '--nothing'."),
    ],
)
def test_a_wrong_option(workplace, call, arguments, message):
    ran = call("cluster", "model.onnx", "-o", "out.onnx", *arguments)
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.splitlines()[-1].startswith(f"Error: {message}")
    assert not (workplace / "out.onnx").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--width", "4"], "cluster: bits = 4: at most 2 with width = 4"),
        (
            ["--max-drop", "0.1", "--no-validate"],
            "max_drop needs evaluate or validate: nothing else can drop",
        ),
        (
            ["--evaluate", "score.py:good", "--max-drop", "much"],
            "max_drop = 'much': give a number from 0, or per cent as in 1%",
        ),
        (
            ["--min-snr", "20", "--no-validate"],
            "min_snr needs validate: without it no output is compared",
        ),
        (
            ["--evaluate", "absent.py:good"],
            ABSENT,
        ),
    ],
)
def test_options_that_do_not_fit_together(workplace, call, arguments, message):
    ran = call("cluster", "model.onnx", "-o", "out.onnx", *QUICK, *arguments)
    assert (ran.code, ran.out, ran.err) == (2, "", f"error: {message}\n")
    assert not (workplace / "out.onnx").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--provider", "cuda"], "provider 'cuda' is not installed here (installed: "),
        (["--provider", "abacus"], "provider 'abacus' is unknown (installed: "),
        (
            ["--data", "absent.npz"],
            "cannot read 'absent.npz': no such file or directory",
        ),
        (["--data", "names.npz"], "names.npz: 'z' is not an input of the model (inputs: x)"),
        (
            ["--data", "shapes.npz"],
            SHAPES,
        ),
    ],
)
def test_what_cannot_be_run(workplace, call, arguments, message):
    np.savez("names.npz", z=np.zeros((4, 32), np.float32))
    np.savez("shapes.npz", x=np.zeros((3, 5), np.float32))
    ran = call("cluster", "model.onnx", "-o", "out.onnx", *QUICK, *arguments)
    assert (ran.code, ran.out) == (1, "")
    assert ran.err.startswith(f"error: {message}")
    assert ran.err.count("\n") == 1
    assert not (workplace / "out.onnx").exists()


@pytest.mark.parametrize("name", [*command().commands])
def test_no_arguments(call, name):
    ran = call(name)
    if name in {"passes", "schema"}:
        assert (ran.code, ran.err) == (0, "")
    else:
        assert (ran.code, ran.out) == (2, "")
        assert "Error: Missing " in ran.err


def test_an_unknown_command(call):
    ran = call("clutser")
    assert ran.code == 2
    assert "No such command 'clutser'" in ran.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--max-bytes", "2000"], r"cluster: a file of 2000 bytes cannot be reached; .*"),
        (["--size-ratio", "50"], r"cluster: a file of \d+ bytes cannot be reached; .*"),
        (
            ["--size-ratio", "2", "--max-bytes", "9000"],
            "cluster: size_ratio and max_bytes exclude each other; give one",
        ),
        (
            ["--size-ratio", "2", "--share", "model"],
            "cluster: size_ratio and max_bytes choose for each tensor; leave out share",
        ),
    ],
)
def test_budgets_that_cannot_be_kept(workplace, call, arguments, message):
    ran = call("cluster", "model.onnx", "-o", "out.onnx", *QUICK, *arguments)
    assert (ran.code, ran.out) == (2, "")
    assert re.fullmatch(f"error: {message}\n", ran.err)
    assert {each.name for each in workplace.iterdir()} == {"model.onnx", "samples.npz"}
