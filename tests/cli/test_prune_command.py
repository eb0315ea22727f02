"""The command that prunes: what it refuses, and what it says."""

import json

import pytest

QUICK = ("--no-bench", "--quiet")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            ("--criterion", "wanda"),
            "criterion = 'wanda' needs data; give --data, or use magnitude",
        ),
        (
            ("--threshold", "0.1", "--pattern", "2:4"),
            "threshold and pattern exclude each other; give one",
        ),
        (
            ("--pattern", "4:4"),
            "pattern = '4:4': of M neighbours fewer than M stay, and one at least",
        ),
        (("--pattern", "2:4", "--block", "4"), "pattern and block exclude each other; give one"),
    ],
)
def test_what_is_refused(workplace, call, given, message):
    ran = call("prune", "model.onnx", "-o", "out.onnx", *QUICK, *given)
    assert (ran.code, ran.out, ran.err) == (2, "", f"error: prune: {message}\n")
    assert not (workplace / "out.onnx").exists()


def test_the_help_says_that_zeros_are_not_faster(call):
    text = " ".join(call("prune", "--help").out.split())
    assert "Zeros do not speed up ONNX Runtime's CPU provider" in text


@pytest.mark.parametrize("source", ["none", "data", "statistics"])
def test_what_the_report_says(workplace, call, source):
    given = {"none": (), "data": ("--data", "samples.npz")}.get(source)
    if given is None:
        call("statistics", "model.onnx", "-o", "seen.npz", "--data", "samples.npz")
        given = ("--statistics", "seen.npz")
    ran = call("prune", "model.onnx", "-o", "out.onnx", *QUICK, "--json", *given)
    assert ran.code == 0
    (step,) = json.loads(ran.out)["steps"]
    reasons = [each["reason"] for each in step["tensors"] if each["verdict"] == "changed"]
    assert reasons
    assert all(" zeros by " in reason for reason in reasons)
    assert any("sparsegpt" in reason for reason in reasons) == (source != "none")
    assert (workplace / "out.onnx").exists()
