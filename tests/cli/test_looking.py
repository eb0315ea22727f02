"""Commands that write nothing, and what every command has in common."""

import json
import os
import resource
import subprocess
import sys
from importlib.metadata import version

import pytest

from onnxcomp.cli.commands import command
from onnxcomp.pipeline import available_passes

MAIN = [sys.executable, "-c", "from onnxcomp.cli import main; main()"]


@pytest.mark.parametrize("name", [*command().commands])
def test_every_help_shows_an_example(call, name):
    ran = call(name, "--help")
    assert (ran.code, ran.err) == (0, "")
    assert f"Example: onnxcomp {name}" in ran.out
    assert command().commands[name].get_short_help_str()


@pytest.mark.parametrize("name", ["run", *available_passes()])
def test_what_all_commands_that_write_have(call, name):
    text = call(name, "--help").out
    for option in (
        *("-o, --output", "--data", "--samples", "--evaluate", "--max-drop", "--min-snr"),
        *(
            "--provider",
            "--threads",
            "--json",
            "--report",
            "--quiet",
            "--include",
            "--exclude",
            "--seed",
        ),
        *("--validate / --no-validate", "--bench / --no-bench"),
    ):
        assert option in text


def test_version(call):
    assert call("--version").out == f"onnxcomp {version('onnxcomp')}\n"


def test_passes(call):
    ran = call("passes")
    assert (ran.code, ran.err) == (0, "")
    assert all(name in ran.out for name in available_passes())


def test_schema(call):
    ran = call("schema")
    assert ran.code == 0
    entries = json.loads(ran.out)["properties"]["passes"]["items"]["oneOf"]
    names = [each["properties"]["pass"]["const"] for each in entries]
    assert names == list(available_passes())


@pytest.mark.usefixtures("workplace")
def test_inspect(call):
    table = call("inspect", "model.onnx").out
    assert "2 Gemm, 2 Relu, 1 MatMul, 1 Add" in table
    assert "is a bias" in table
    looked = json.loads(call("inspect", "model.onnx", "--json").out)
    assert looked["inputs"] == ["x: float32 [4, 32]"]
    assert looked["metadata"] == {"author": "somebody", "licence": "any"}
    assert {each["name"]: each["store"] for each in looked["weights"]} == dict.fromkeys(
        ("w1", "b1", "w2", "b2", "w3", "b3"), "plain"
    )


def test_inspect_a_compressed_model(workplace, call, models):
    (workplace / "stored.onnx").write_bytes(models["stored"].source(workplace))
    looked = json.loads(call("inspect", "stored.onnx", "--json").out)
    stores = {each["name"]: each["store"] for each in looked["weights"]}
    assert [stores[name] for name in ("table", "w1", "w2")] == ["codebook"] * 3
    assert "Gather" in looked["operators"]


def test_validate(workplace, call):
    assert call("cluster", "model.onnx", "-o", "out.onnx", "--no-bench", "--quiet").code == 0
    ran = call("validate", "model.onnx", "out.onnx", "--data", "samples.npz", "--json")
    assert (ran.code, ran.err) == (0, "")
    report = json.loads(ran.out)
    assert report["validation"][0]["samples"] == 12
    assert (report["steps"], report["benchmark"]) == ([], [])
    floored = call("validate", "model.onnx", "out.onnx", "--min-snr", 90)
    assert floored.code == 3
    assert "SNR dB" in floored.out
    assert {path.name for path in workplace.iterdir()} == {"model.onnx", "samples.npz", "out.onnx"}


def test_validate_a_broken_model(workplace, call):
    model = (workplace / "model.onnx").read_bytes()
    (workplace / "broken.onnx").write_bytes(model.replace(b"MatMul", b"MatMux"))
    ran = call("validate", "model.onnx", "broken.onnx", "--json")
    assert ran.code == 1
    assert json.loads(ran.out)["validation"][0]["failure"].startswith("cannot load broken.onnx")
    assert ran.err.startswith("error: broken.onnx: cannot load broken.onnx on cpu: ")


@pytest.mark.usefixtures("workplace")
def test_bench(call):
    ran = call("bench", "model.onnx", "model.onnx", "--json", "--threads", 1)
    assert (ran.code, ran.err) == (0, "")
    report = json.loads(ran.out)
    assert report["validation"] == []
    assert 0.3 < report["benchmark"][0]["latency_ratio"]["median"] < 3


def test_the_help_costs_little():
    def spent(*command):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        assert "--help" not in command or "cluster" in done.stdout
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime

    # What every command needs; how long that takes is the machine's affair.
    needed = (sys.executable, "-c", "import click, ml_dtypes, onnx, pydantic, rich.console")
    # Neighbours make CPU time longer, never shorter.
    shortest = min(spent(*needed) for _ in range(3))
    assert any(spent(*MAIN, "--help") < 4.5 * shortest for _ in range(6))


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_shell_completion(shell):
    environment = os.environ | {"_ONNXCOMP_COMPLETE": f"{shell}_source"}
    code = "import sys; sys.argv = ['onnxcomp']; from onnxcomp.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert "_ONNXCOMP_COMPLETE" in done.stdout


def test_a_real_process(workplace):
    done = subprocess.run(
        [*MAIN, "cluster", "model.onnx", "-o", "out.onnx", "--no-bench", "--json"],
        capture_output=True,
        text=True,
        check=True,
        cwd=workplace,
    )
    assert json.loads(done.stdout)["output"]["path"] == "out.onnx"
    assert "x smaller" in done.stderr
    failed = subprocess.run(
        [*MAIN, "inspect", "absent.onnx"], capture_output=True, text=True, check=False
    )
    assert (failed.returncode, failed.stdout) == (1, "")
    assert failed.stderr == "error: cannot read 'absent.onnx': no such file or directory\n"
