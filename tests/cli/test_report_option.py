"""``--report``: the same of every command that measures."""

import json

import pytest

from onnxcomp.report import SUFFIXES

QUICK = ("--data", "samples.npz", "--samples", 8)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_pass(workplace, call, suffix):
    report = f"report{suffix}"
    ran = call(
        *("cluster", "model.onnx", "-o", "out.onnx", "--no-bench", "--quiet"), "--report", report
    )
    assert (ran.code, ran.out, ran.err) == (0, "out.onnx\n", "")
    text = (workplace / report).read_text(encoding="utf-8")
    assert "out.onnx" in text.replace("&#46;", ".")
    if suffix == ".json":
        assert json.loads(text)["recipe"]["passes"][0]["bits"] == 4


def test_two_files(workplace, call):
    call("cluster", "model.onnx", "-o", "out.onnx", "--no-bench", "--no-validate", "--quiet")
    models = ("model.onnx", "out.onnx", *QUICK)
    assert call("validate", *models, "--report", "a.html").code == 0
    assert call("bench", *models, "--report", "b.html").code == 0
    checked = call(
        *("check", "out.onnx", "--against", "model.onnx", *QUICK),
        *("--min-snr", 1, "--report", "c.md"),
    )
    assert checked.code == 0
    assert "Outputs against the original" in (workplace / "a.html").read_text(encoding="utf-8")
    assert "<svg" in (workplace / "b.html").read_text(encoding="utf-8")
    assert "| file |" in (workplace / "c.md").read_text(encoding="utf-8")


def test_a_ranking(workplace, call):
    arguments = ("model.onnx", *QUICK, "--pass", "cluster", "--report", "r.html")
    assert call("sensitivity", *arguments).code == 0
    page = (workplace / "r.html").read_text(encoding="utf-8")
    assert "sensitivity of model.onnx to cluster" in page


def test_a_missed_floor_is_reported_all_the_same(workplace, call):
    ran = call(
        *("cluster", "model.onnx", "-o", "out.onnx", "--bits", 1, "--no-bench", "--quiet"),
        *(*QUICK, "--min-snr", 90, "--report", "r.html"),
    )
    assert ran.code == 3
    assert not (workplace / "out.onnx").exists()
    assert "Missed the floor." in (workplace / "r.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "command",
    [
        ("cluster", "model.onnx", "-o", "out.onnx"),
        ("validate", "model.onnx", "model.onnx"),
        ("sensitivity", "model.onnx", "--data", "samples.npz"),
        ("check", "model.onnx", "--against", "model.onnx", "--min-size-ratio", 1),
    ],
    ids=lambda command: command[0],
)
def test_a_report_that_cannot_be_written(workplace, call, command):
    for path, code, message in (
        ("r.pdf", 2, "report 'r.pdf': give a name that ends in .html, .md or .json"),
        ("gone/r.html", 1, "cannot write 'gone/r.html': no folder 'gone'; make it first"),
    ):
        ran = call(*command, "--report", path)
        assert (ran.code, ran.out, ran.err) == (code, "", f"error: {message}\n")
    assert not (workplace / "out.onnx").exists()
