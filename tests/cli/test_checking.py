"""`onnxcomp check`: a line for each floor, and the exit code that CI goes by."""

import json

import numpy as np
import pytest

from onnxcomp import Limits, OnnxcompError, Settings, check
from onnxcomp.api.floors import floors_of
from onnxcomp.intervals import Interval

AGAINST = ("--against", "model.onnx", "--data", "samples.npz")


@pytest.fixture
def small(workplace, call):
    assert call("cluster", "model.onnx", "-o", "small.onnx", "--no-bench", "--quiet").code == 0
    return workplace


@pytest.mark.usefixtures("small")
def test_held(call):
    floors = ("--max-drop", "100%", "--min-snr", 1, "--min-size-ratio", 1.1)
    ran = call("check", "small.onnx", *AGAINST, *floors)
    assert (ran.code, ran.err) == (0, "")
    lines = ran.out.splitlines()
    assert [line.partition(": ")[0] for line in lines] == ["ok"] * 3
    assert "of the rows disagree with the original's on cpu (12 samples), allowed is 1" in lines[0]
    assert lines[1].endswith("dB on cpu (12 samples), least is 1")
    assert lines[2].endswith("bytes), least is 1.1")


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("bad", [np.nan, 3e38])
def test_nothing_finite_to_compare(call, bad):
    np.savez("bad.npz", x=np.full_like(np.load("samples.npz")["x"], bad))
    floors = ("--max-drop", "100%", "--min-snr", 1)
    ran = call("check", "small.onnx", "--against", "model.onnx", "--data", "bad.npz", *floors)
    assert ran.code == 3
    line = (
        "FAILED: nothing could be compared of output 'y' on cpu (12 samples, on 12 of which the "
        "original is not finite itself: 0, 1, 2, 3, 4, 5, 6, 7, ...): it has no finite element "
        "there; give --data on which it has"
    )
    assert ran.out.splitlines() == [line, line]
    assert ran.err == "error: small.onnx misses what is asked of it: --max-drop, --min-snr\n"
    ran = call("validate", "model.onnx", "small.onnx", "--data", "bad.npz", "--min-snr", 1)
    assert ran.code == 3
    ran = call("cluster", "model.onnx", "-o", "o.onnx", "--data", "bad.npz", "--min-snr", 1)
    assert ran.code == 3


@pytest.mark.usefixtures("small")
def test_missed(call):
    floors = ("--min-snr", 90, "--min-size-ratio", 50)
    ran = call("check", "small.onnx", *AGAINST, *floors)
    assert ran.code == 3
    assert ran.out.count("FAILED: ") == 2
    assert ran.err == (
        "error: small.onnx misses what is asked of it: --min-snr, --min-size-ratio\n"
    )
    told = json.loads(call("check", "small.onnx", *AGAINST, *floors, "--json").out)
    assert [each["verdict"] for each in told["floors"]] == ["missed", "missed"]
    assert told["report"]["benchmark"] == []


def test_a_model_that_is_the_original(workplace, call):
    (workplace / "score.py").write_text("def good(predict):\n    return 0.5\n")
    floors = ("--max-drop", 0, "--evaluate", "score.py:good", "--max-latency-ratio", 50)
    ran = call("check", "model.onnx", "--against", "model.onnx", *floors)
    assert (ran.code, ran.err) == (0, "")
    metric, latency = ran.out.splitlines()
    assert metric == "ok: the metric dropped by 0 (from 0.5 to 0.5), allowed is 0"
    assert latency.startswith("ok: the latency ratio on cpu is ")


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [(0.9, 1.0, "held"), (0.98, 1.02, "unclear"), (1.01, 1.2, "missed"), (1.0, 1.2, "unclear")],
)
def test_latency_fails_only_where_the_whole_interval_is_above(small, low, high, verdict):
    settings = Settings(bench=False)
    done = check("model.onnx", "model.onnx", Limits(max_latency_ratio=9), settings=settings)
    interval = Interval(median=(low + high) / 2, low=low, high=high)
    timed = done.report.benchmark[0].model_copy(update={"latency_ratio": interval})
    report = done.report.model_copy(update={"benchmark": (timed,)})
    (floor,) = floors_of(report, settings, Limits(max_latency_ratio=1.0))
    assert floor.verdict == verdict
    assert ("cannot be told" in floor.text) == (verdict == "unclear")
    assert (small / "model.onnx").exists()


def test_what_cannot_be_checked(workplace, call):
    ran = call("check", "model.onnx", *AGAINST)
    assert ran.code == 2
    assert ran.err.startswith("error: check has no floor; give --max-drop")
    broken = (workplace / "model.onnx").read_bytes().replace(b"MatMul", b"MatMux")
    (workplace / "broken.onnx").write_bytes(broken)
    ran = call("check", "broken.onnx", *AGAINST, "--min-size-ratio", 0.5)
    assert (ran.code, ran.out) == (1, "")
    assert ran.err.startswith("error: broken.onnx: cannot load broken.onnx on cpu: ")


def test_in_a_script(small):
    done = check(
        "small.onnx", "model.onnx", Limits(min_size_ratio=99), settings=Settings(bench=False)
    )
    assert [each.option for each in done.missed] == ["min_size_ratio"]
    with pytest.raises(OnnxcompError, match="no floor"):
        check("small.onnx", "model.onnx", Limits())
    assert (small / "small.onnx").exists()
