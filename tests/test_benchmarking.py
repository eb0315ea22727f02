"""Benchmarks: ratios within loose bounds, since machines are shared."""

import json
from types import SimpleNamespace

import numpy as np
import onnx
import pytest

from onnxcomp.benchmarking import benchmark, time_ratio
from onnxcomp.errors import ModelError, OptionError
from onnxcomp.runtime import open_session, samples_for
from onnxcomp.runtime.memory import own_peak, peak_memory


def chain(length, width=256):
    """A chain of equal products, whose cost grows with its length."""
    steps = " ".join(f"h{place + 1} = MatMul(h{place}, w)" for place in range(length))
    model = onnx.parser.parse_model(f"""
        <ir_version: 10, opset_import: ["" : 21]>
        agraph (float[N, {width}] h0) => (float[N, {width}] h{length})
        <float[{width}, {width}] w> {{ {steps} }}
        """)
    w = np.eye(width, dtype=np.float32)
    model.graph.initializer.append(onnx.numpy_helper.from_array(w, "w"))
    return model.SerializeToString()


def test_a_model_of_four_times_the_work(tmp_path):
    original, result = chain(2), chain(8)
    path = tmp_path / "result.onnx"
    path.write_bytes(result)
    shares = []
    found = benchmark(original, path, samples_for(open_session(original)), progress=shares.append)
    assert (found.provider, found.threads, found.pairs) == ("cpu", 1, 30)
    assert 0.5 < found.cpu_control.low <= found.cpu_control.median <= found.cpu_control.high < 2
    assert found.cpu_ratio.median > 1.5 * found.cpu_control.median
    assert found.latency_ratio.low <= found.latency_ratio.median <= found.latency_ratio.high
    assert found.load_ratio > 0
    assert len(shares) == 30
    assert shares[-1] == 1
    written = json.loads(found.model_dump_json())
    assert set(written["control"]) == {"median", "low", "high"}
    assert set(written["peak_memory"]) == {"original", "result"}


def test_no_time_leaves_three_rounds():
    model = chain(2)
    found = benchmark(model, model, samples_for(open_session(model)), seconds=1e-9)
    assert found.pairs == len(found.latency_ratios) == 3
    feeds = list(samples_for(open_session(model)))
    ratio = time_ratio(model, chain(8), feeds, seconds=0)
    assert ratio.low <= ratio.median <= ratio.high


def test_too_few_pairs():
    model = chain(1)
    with pytest.raises(OptionError) as caught:
        benchmark(model, model, samples_for(open_session(model)), pairs=29)
    assert str(caught.value) == "pairs must be at least 30, got 29"


def test_outputs_that_contradict_each_other():
    def model(form):
        return onnx.parser.parse_model(f"""
            <ir_version: 10, opset_import: ["" : 21]>
            agraph (float[N, 6] x) => (float[M, {form[-1]}] y)
            <int64[2] form = {{{form[0]}, {form[1]}}}> {{ y = Reshape(x, form) }}
            """).SerializeToString()

    original, result = model((-1, 6)), model((-1, 3))
    with pytest.raises(ModelError) as caught:
        benchmark(original, result, samples_for(open_session(original)))
    assert "declares output y tensor(float)[M, 3], against y tensor(float)[M, 6]" in str(
        caught.value
    )


@pytest.mark.parametrize(("system", "factor"), [("darwin", 1), ("freebsd14", 1024)])
def test_peak_memory_without_proc(monkeypatch, system, factor):
    resource = pytest.importorskip("resource")

    def refuse(*_, **__):
        raise FileNotFoundError

    monkeypatch.setattr("onnxcomp.runtime.memory.Path.read_text", refuse)
    monkeypatch.setattr("sys.platform", system)
    monkeypatch.setattr(resource, "getrusage", lambda _: SimpleNamespace(ru_maxrss=5))
    assert own_peak() == 5 * factor


def test_peak_memory_grows_with_the_model():
    """A width of 4096 is 64 MiB of weights."""
    small, large = chain(1, 16), chain(1, 4096)
    peaks = [
        peak_memory(model, {"h0": np.ones((1, width), np.float32)})
        for model, width in ((small, 16), (large, 4096))
    ]
    assert peaks[1] - peaks[0] > 60 << 20


def test_the_memory_of_text_and_of_a_failure():
    model = onnx.parser.parse_model("""
        <ir_version: 10, opset_import: ["" : 21]>
        agraph (string[N] x) => (string[N] y) { y = Identity(x) }
        """).SerializeToString()
    assert peak_memory(model, {"x": np.array(["a"], object)}) > 1 << 20
    with pytest.raises(ModelError, match=r"^cannot measure the memory of a run: .*'w' is not"):
        peak_memory(model, {"w": np.ones(1)})


def test_parts_of_a_model():
    original, result = chain(2), chain(8)
    feed = next(iter(samples_for(open_session(original))))
    found = time_ratio(original, result, [feed])
    assert found.low <= found.median <= found.high
    assert found.median > 1.5
