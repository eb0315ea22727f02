"""The command that removes channels: what it refuses, and what it reports."""

import json

import onnx
import pytest

QUICK = ("--no-bench", "--quiet")
NAME = "prune-channels"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--ratio", "0.3", "--macs", "0.5"), "ratio and macs exclude each other; give one"),
        (("--macs", "0.5", "--latency", "0.7"), "macs and latency exclude each other; give one"),
        (
            ("--ratio", "0.9"),
            "ratio = 0.9 leaves less than least = 0.2; lower one of them",
        ),
        (("--latency", "0.7"), "latency = 0.7 needs samples to time; give --data"),
        (
            ("--criterion", "activation"),
            "criterion = 'activation' needs data; give --data, or use magnitude",
        ),
    ],
    ids=["two goals", "other two", "too many", "nothing to time", "nothing to rank"],
)
def test_what_cannot_be_is_refused(workplace, call, options, message):
    ran = call(NAME, "model.onnx", "-o", "out.onnx", *QUICK, *options)
    assert (ran.code, ran.out, ran.err) == (2, "", f"error: {NAME}: {message}\n")
    assert not (workplace / "out.onnx").exists()


def test_too_few_operations(workplace, call):
    ran = call(NAME, "model.onnx", "-o", "out.onnx", *QUICK, "--macs", "0.01")
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.startswith(f"error: {NAME}: macs = 0.01 cannot be had: the least is 0.")
    assert ran.err.endswith("(lower least, or select more)\n")
    assert not (workplace / "out.onnx").exists()


def test_statistics_do(workplace, call):
    call("statistics", "model.onnx", "-o", "seen.npz", "--data", "samples.npz")
    given = ("--statistics", "seen.npz", *QUICK, "--json", "--ratio", "0.5")
    ran = call(NAME, "model.onnx", "-o", "out.onnx", *given)
    assert ran.code == 0
    (step,) = json.loads(ran.out)["steps"]
    reasons = {each["name"]: each["reason"] for each in step["tensors"]}
    assert " outputs kept" in reasons["w1"]
    assert " inputs kept, 20 of 40 outputs kept, refitted" in reasons["w2"]
    before, after = (onnx.load(workplace / name) for name in ("model.onnx", "out.onnx"))
    assert after.graph.input == before.graph.input
    assert after.graph.output == before.graph.output
    assert len(after.SerializeToString()) < 0.8 * len(before.SerializeToString())
