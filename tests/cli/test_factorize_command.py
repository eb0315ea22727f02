"""The command that factorizes: what it refuses, reports, and writes down."""

import json

from onnxcomp.api import recipe_of

QUICK = ("--no-bench", "--quiet")


def test_two_goals(workplace, call):
    ran = call("factorize", "model.onnx", "-o", "out.onnx", "--macs", "0.5", "--rank-ratio", "0.5")
    message = "factorize: rank_ratio and macs exclude each other; give one"
    assert (ran.code, ran.out, ran.err) == (2, "", f"error: {message}\n")
    assert not (workplace / "out.onnx").exists()


def test_a_budget_that_cannot_be_kept(workplace, call):
    ran = call("factorize", "model.onnx", "-o", "out.onnx", "--size-ratio", "99", *QUICK)
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.startswith("error: factorize: a file of ")
    assert ran.err.endswith("(allow more, or factorize more tensors)\n")
    assert not (workplace / "out.onnx").exists()


def test_what_was_decided_is_in_the_recipe(workplace, call):
    options = ("--macs", "0.6", "--allow", "size", "--data", "samples.npz", *QUICK)
    ran = call("factorize", "model.onnx", "-o", "out.onnx", *options, "--json")
    assert ran.code == 0
    (step,) = json.loads(ran.out)["steps"]
    assert step["status"] == "applied"
    assert "decided on plan = " in step["reason"]
    (entry,) = recipe_of(str(workplace / "out.onnx"))["passes"]
    assert "macs" not in entry
    assert all("=pair:" in each for each in entry["plan"])
    ran = call("recipe", "out.onnx")
    (workplace / "again.json").write_text(ran.out)
    given = ("again.json", "model.onnx", "-o", "again.onnx", "--data", "samples.npz", *QUICK)
    assert call("run", *given).code == 0
    assert (workplace / "again.onnx").read_bytes() == (workplace / "out.onnx").read_bytes()
