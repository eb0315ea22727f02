"""Commands that write a model: what lands in the file, on stdout and on stderr."""

import json

import numpy as np
import onnx
import pytest

from onnxcomp import Verdict, compress
from onnxcomp.passes import Cluster
from onnxcomp.runtime import open_session

QUICK = ("--no-bench", "--quiet")

SCORE = """
calls = []
def good(predict):
    return 1.0
def halved(predict):
    calls.append(1)
    return 1.0 / len(calls)
def bad(predict):
    raise ValueError("two\\nlines")
"""


@pytest.fixture
def scored(workplace):
    (workplace / "score.py").write_text(SCORE)
    return workplace


def test_the_path_is_all_that_stdout_carries(workplace, call):
    ran = call("cluster", "model.onnx", "-o", "out.onnx", "--bits", 3, "--no-bench")
    assert (ran.code, ran.out) == (0, "out.onnx\n")
    assert "cluster" in ran.err
    assert "x smaller" in ran.err
    assert (workplace / "out.onnx").stat().st_size * 2 < (workplace / "model.onnx").stat().st_size


def test_quiet(workplace, call, untimed):
    ran = call("cluster", "model.onnx", "-o", "out.onnx", "--data", "samples.npz", *QUICK)
    assert (ran.code, ran.out, ran.err) == (0, "out.onnx\n", "")
    made = compress("model.onnx", [Cluster()], data="samples.npz", settings=untimed)
    assert (workplace / "out.onnx").read_bytes() == made.to_bytes()


def test_json_is_all_that_stdout_carries(scored, call):
    ran = call(
        *("cluster", "model.onnx", "-o", "out.onnx", "--json", "--threads", 1),
        *("--data", "samples.npz", "--samples", 8, "--evaluate", "score.py:good"),
    )
    assert ran.code == 0
    report = json.loads(ran.out)
    assert list(report) == [
        *("version", "source", "output", "steps", "validation", "metric", "benchmark"),
        *("search", "missed", "doubt", "unchecked", "graph", "recipe", "environment"),
        "size_ratio",
    ]
    for side in ("source", "output"):
        assert set(report[side]) == {"path", "bytes", "zstd_bytes", "sha256"}
    assert report["source"]["path"] == "model.onnx"
    assert report["output"]["path"] == "out.onnx"
    assert report["output"]["bytes"] == (scored / "out.onnx").stat().st_size
    assert report["size_ratio"] == report["source"]["bytes"] / report["output"]["bytes"]
    (step,) = report["steps"]
    assert set(step) == {"pass", "options", "status", "reason", "seconds", "tensors"}
    assert (step["pass"], step["status"]) == ("cluster", "applied")
    assert set(Verdict.model_fields) == {
        *("name", "op_types", "shape", "verdict", "reason"),
        *("bytes_before", "bytes_after", "error"),
    }
    assert {frozenset(tensor) for tensor in step["tensors"]} == {frozenset(Verdict.model_fields)}
    (validation,) = report["validation"]
    assert {"provider", "samples", "synthetic", "outputs"} <= set(validation)
    assert (validation["samples"], validation["synthetic"]) == (8, False)
    (output,) = validation["outputs"]
    assert {"name", "cosine", "snr_db", "max_abs", "agreement"} <= set(output)
    assert {"original": 1.0, "result": 1.0, "drop": 0.0}.items() <= report["metric"].items()
    (benchmark,) = report["benchmark"]
    assert {"provider", "threads", "latency_ratio", "control", "load_ratio", "peak_memory"} <= set(
        benchmark
    )
    assert set(benchmark["latency_ratio"]) == {"median", "low", "high"}
    assert set(benchmark["control"]) == {"median", "low", "high"}


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("recipe.toml", '[[passes]]\npass = "cluster"\nbits = 3\nexclude = ["w2"]\n'),
        (
            "recipe.json",
            '{"passes": [{"pass": "cluster", "bits": 3, "exclude": ["w2"]}]}',
        ),
    ],
)
def test_run(workplace, call, untimed, name, text):
    (workplace / name).write_text(text)
    ran = call("run", name, "model.onnx", "-o", "out.onnx", "--data", "samples.npz", *QUICK)
    assert (ran.code, ran.out, ran.err) == (0, "out.onnx\n", "")
    passes = [Cluster(bits=3, exclude=("w2",))]
    made = compress("model.onnx", passes, data="samples.npz", settings=untimed)
    assert (workplace / "out.onnx").read_bytes() == made.to_bytes()


def test_a_selection_narrows_the_recipe(workplace, call):
    (workplace / "recipe.toml").write_text('[[passes]]\npass = "cluster"\nexclude = ["w*"]\n')
    ran = call("run", "recipe.toml", "model.onnx", "-o", "out.onnx", "--exclude", "no", *QUICK)
    assert ran.code == 0
    assert (workplace / "out.onnx").read_bytes() == (workplace / "model.onnx").read_bytes()
    (workplace / "recipe.toml").write_text('[[passes]]\npass = "cluster"\ninclude = ["w1"]\n')
    ran = call("run", "recipe.toml", "model.onnx", "-o", "out.onnx", "--include", "w2", *QUICK)
    assert (ran.code, ran.err) == (
        2,
        "error: --include: cluster has an include in the recipe; change it there\n",
    )


def test_run_with_a_selection(workplace, call):
    (workplace / "recipe.toml").write_text('[[passes]]\npass = "cluster"\n')
    ran = call(
        *("run", "recipe.toml", "model.onnx", "-o", "out.onnx", "--json", *QUICK),
        *("--include", "w1", "--include", "w3"),
    )
    tensors = json.loads(ran.out)["steps"][0]["tensors"]
    changed = {each["name"] for each in tensors if each["verdict"] == "changed"}
    assert changed == {"w1", "w3"}


def test_expand_is_exact(workplace, call):
    call("cluster", "model.onnx", "-o", "small.onnx", *QUICK)
    ran = call("expand", "small.onnx", "-o", "plain.onnx", *QUICK)
    assert (ran.code, ran.out) == (0, "plain.onnx\n")
    plain = onnx.load("plain.onnx")
    original = onnx.load("model.onnx")
    assert [node.op_type for node in plain.graph.node] == [
        node.op_type for node in original.graph.node
    ]
    small, expanded = (open_session(workplace / name) for name in ("small.onnx", "plain.onnx"))
    x = np.load("samples.npz")["x"][:4]
    assert np.array_equal(small.run({"x": x})["y"], expanded.run({"x": x})["y"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--evaluate", "score.py:halved", "--max-drop", "0.1"],
            "the metric dropped by 0.5 (from 1 to 0.5), allowed is 0.1; ",
        ),
        (
            ["--evaluate", "score.py:halved", "--max-drop", "20%"],
            "the metric dropped by 0.5 (from 1 to 0.5), allowed is 0.2; ",
        ),
        (["--min-snr", "90"], "the SNR of the outputs is "),
    ],
)
def test_a_missed_floor(scored, call, arguments, message):
    (scored / "out.onnx").write_bytes(b"what was there")
    ran = call("cluster", "model.onnx", "-o", "out.onnx", *QUICK, *arguments)
    assert (ran.code, ran.out) == (3, "")
    assert ran.err.startswith(f"error: {message}")
    assert (scored / "out.onnx").read_bytes() == b"what was there"
    assert {path.name for path in scored.iterdir()} <= {
        *("model.onnx", "samples.npz", "score.py", "out.onnx", "__pycache__"),
    }


def test_a_missed_floor_as_json(scored, call):
    ran = call("cluster", "model.onnx", "-o", "out.onnx", "--json", *QUICK, "--min-snr", 90)
    assert ran.code == 3
    assert json.loads(ran.out)["output"]["path"] is None
    assert not (scored / "out.onnx").exists()


@pytest.mark.usefixtures("scored")
def test_a_floor_that_is_held(call):
    floor = ("--evaluate", "score.py:good", "--max-drop", "0", "--min-snr", "3")
    ran = call("cluster", "model.onnx", "-o", "out.onnx", *QUICK, *floor)
    assert (ran.code, ran.err) == (0, "")


def test_an_evaluator_that_raises(scored, call):
    ran = call("cluster", "model.onnx", "-o", "out.onnx", *QUICK, "--evaluate", "score.py:bad")
    assert (ran.code, ran.out) == (1, "")
    assert ran.err == "error: evaluator 'score.py:bad' raised ValueError: two lines\n"
    assert not (scored / "out.onnx").exists()


@pytest.mark.usefixtures("workplace")
def test_a_missing_folder_is_found_before_the_work(call, monkeypatch):
    def work(*_, **__):
        raise AssertionError

    monkeypatch.setattr("onnxcomp.cli.writing.compress", work)
    ran = call("cluster", "model.onnx", "-o", "none/out.onnx", *QUICK)
    assert (ran.code, ran.out) == (1, "")
    assert ran.err == "error: cannot write 'none/out.onnx': no folder 'none'; make it first\n"


@pytest.mark.usefixtures("workplace")
def test_a_folder_is_no_target(call):
    ran = call("cluster", "model.onnx", "-o", ".", *QUICK)
    assert ran.code == 2
    assert "File '.' is a directory" in ran.err


def test_the_output_may_be_the_input(workplace, call):
    content = (workplace / "model.onnx").read_bytes()
    before = len(content)
    ran = call("cluster", "model.onnx", "-o", "./model.onnx", *QUICK)
    assert (ran.code, ran.err) == (
        2,
        "error: -o 'model.onnx' is the model itself; give another name, or --force\n",
    )
    assert (workplace / "model.onnx").read_bytes() == content
    ran = call("cluster", "model.onnx", "-o", "model.onnx", "--force", *QUICK)
    assert (ran.code, ran.out) == (0, "model.onnx\n")
    assert (workplace / "model.onnx").stat().st_size < before / 2
    onnx.checker.check_model("model.onnx")


def test_external_data_may_be_replaced_in_place(workplace, call, models):
    path = models["external_data"].source(workplace)
    ran = call("cluster", path.name, "-o", path.name, "--force", "--json", *QUICK)
    report = json.loads(ran.out)
    onnx.checker.check_model(path)
    beside = list(workplace.glob("external_data-*.data"))
    files = [path, *beside]
    assert report["output"]["bytes"] == sum(each.stat().st_size for each in files)
