"""What auto takes, statistics instead of data, selections, and the same bytes each time."""

import json

import numpy as np
import onnx
import pytest
from quantizing import (
    CONVNET,
    IMAGES,
    built,
    context_of,
    feeds_of,
    matrix,
    operators,
    quantized,
    run,
    snr,
)

from onnxcomp import Settings, benchmarking, compress, load_model
from onnxcomp.graph import model_bytes
from onnxcomp.passes import Quantize
from onnxcomp.pipeline import Context, parse_recipe
from onnxcomp.runtime import open_session, read_samples
from onnxcomp.statistics import load_statistics, observe
from onnxcomp_passes.quantize import choosing, mixing

ROWS = feeds_of(12, x=(2, 5, 48))
NET = built(
    """(float[N,L,48] x) => (float[N,L,40] y) {
        a = MatMul(x, w1)  b = Tanh(a)  c = MatMul(b, w2)  d = Sigmoid(c)  y = MatMul(d, w3) }""",
    {"w1": matrix(48, 64), "w2": matrix(64, 48), "w3": matrix(48, 40)},
)
MODES = {
    "static": ("QuantizeLinear",),
    "dynamic": ("DynamicQuantizeLinear",),
    "weights": (),
}


COSTS = {"float": 10.0, "static": 5.0, "dynamic": 5.0}


def kinds(model):
    """Return how each matrix product of a file is computed, by the name of its weight."""
    found = {}
    for node in onnx.load_from_string(model).graph.node:
        if node.op_type == "MatMulInteger":
            found[node.input[1].removesuffix(".codes")] = "dynamic"
        elif node.op_type == "MatMul":
            is_static = node.input[0].endswith(".dequantized")
            found[node.input[1]] = "static" if is_static else "float"
    return found


@pytest.fixture
def costs(monkeypatch):
    """What drafts take for each weight by how it is computed, instead of what they really take."""
    given = {name: dict(COSTS) for name in ("w1", "w2", "w3")}

    def cost(model):
        return sum(given[name][kind] for name, kind in kinds(model).items())

    def ratio(one, other, _):
        found = cost(other) / cost(one)
        return benchmarking.Interval(median=found, low=found, high=found)

    monkeypatch.setattr(mixing, "time_ratio", ratio)
    return given


@pytest.fixture
def ratios(monkeypatch, costs):
    """Latencies that auto measures of results: a ratio for each but the last."""
    assert costs
    given = []
    monkeypatch.setattr(choosing, "_latency_ratio", lambda *_: given.pop(0))
    return given


def decided(feeds, proto=NET, **options):
    """Return what auto makes, and the passes that it says do the same."""
    told = []
    context = context_of(proto, feeds, decide=lambda passes: told.append(tuple(passes)))
    result, verdicts = quantized(proto, context=context, **options)
    (chosen,) = told
    return result, verdicts, chosen


@pytest.mark.parametrize(
    ("measured", "mode"),
    [
        ([0.5, 0.6], "static"),
        ([0.6, 0.5], "dynamic"),
        ([np.inf, 0.9], "dynamic"),
        ([0.9, np.inf], "static"),
        ([1.2, 1.1], "weights"),
        ([np.inf, np.inf], "weights"),
    ],
)
def test_the_fastest_is_kept(ratios, measured, mode):
    ratios += measured
    result, verdicts, (chosen,) = decided(ROWS)
    assert chosen.mode == mode
    expected, of_trial = quantized(NET, ROWS, mode=mode)
    assert (result, verdicts) == (expected, of_trial)


def test_without_data_weights_are_stored():
    result, _, (chosen,) = decided(None)
    assert chosen.mode == "weights"
    assert result == quantized(NET, mode="weights")[0]


def test_each_layer_is_computed_in_its_fastest_way(ratios, costs):
    costs["w2"] |= {"static": 12.0, "dynamic": 11.0}
    costs["w3"]["dynamic"] = 3.0
    ratios += [0.5, 0.6]
    result, verdicts, chosen = decided(ROWS)
    assert kinds(result) == {"w1": "static", "w2": "float", "w3": "dynamic"}
    assert [(each.mode, each.include, each.exclude) for each in chosen] == [
        ("static", (), ("w3", "w2")),
        ("dynamic", ("w3",), ()),
        ("weights", ("w2",), ()),
    ]
    assert [each.verdict for each in verdicts.values()] == ["changed"] * 3
    assert "computed" not in verdicts["w2"].reason
    settings = Settings(bench=False)
    replayed = compress(NET, chosen, data=ROWS, settings=settings)
    ratios += [0.5, 0.6]
    found = compress(NET, [Quantize()], data=ROWS, settings=settings)
    assert replayed.to_bytes() == found.to_bytes()


def test_what_does_not_gain_is_not_calibrated(ratios, costs):
    for each in costs.values():
        each |= {"static": 11.0, "dynamic": 12.0}
    result, _, (chosen,) = decided(ROWS)
    assert not ratios
    assert chosen.mode == "weights"
    assert set(kinds(result).values()) == {"float"}


def test_no_part_is_tried_after_a_minute(ratios, costs, monkeypatch):
    monkeypatch.setattr(mixing, "MOST_SECONDS", -1.0)
    costs["w2"] |= {"static": 12.0, "dynamic": 11.0}
    ratios += [0.5, 0.6]
    _, _, (chosen,) = decided(ROWS)
    assert (chosen.mode, chosen.exclude) == ("static", ())


@pytest.mark.parametrize("floor", [None, 40.0])
@pytest.mark.parametrize("measured", [[0.5, 0.6], [0.6, 0.5]])
def test_the_recipe_gives_the_same_bytes(ratios, measured, floor):
    ratios += measured
    settings = Settings(bench=False)
    context = {"min_snr": floor} if floor else {}
    model, told = load_model(NET), []
    samples = context_of(NET, ROWS).samples
    Quantize().apply(model, Context(samples, decide=told.extend, **context))
    (chosen,) = told
    again = load_model(NET)
    chosen.apply(again, Context(samples))
    assert model_bytes(again) == model_bytes(model)
    ratios += measured
    found = compress(NET, [Quantize()], data=ROWS, settings=settings)
    recipe = json.loads(found.graph.metadata["onnxcomp.recipe"])
    assert found.report.steps[0].status == "applied"
    replayed = compress(NET, parse_recipe(recipe), data=ROWS, settings=settings)
    assert replayed.to_bytes() == found.to_bytes()


def test_the_recipe_makes_a_quantized_model_float_first(ratios):
    once, _ = quantized(NET, ROWS, mode="static")
    samples = context_of(NET, ROWS).samples
    ratios += [0.5, 0.6]
    model, told = load_model(once), []
    Quantize(requantize=True).apply(model, Context(samples, decide=told.extend))
    (chosen,) = told
    again = load_model(once)
    chosen.apply(again, Context(samples))
    assert model_bytes(again) == model_bytes(model)


def test_measured_for_real(monkeypatch):
    monkeypatch.setattr(benchmarking, "_LEAST_SECONDS", 0.0)
    monkeypatch.setattr(mixing, "PORTIONS", 1)
    monkeypatch.setattr(benchmarking, "peak_memory", lambda *_, **__: 0)
    result, _, chosen = decided(ROWS)
    again = load_model(NET)
    for one in chosen:
        one.apply(again, context_of(NET, ROWS))
    assert result == model_bytes(again)
    ratio = choosing._latency_ratio(
        NET.SerializeToString(), NET.SerializeToString(), context_of(NET, ROWS).samples
    )
    # No model is faster than itself.
    assert ratio == np.inf


def test_what_is_not_exact_enough_is_not_kept():
    source = NET.SerializeToString()
    result, _ = quantized(NET, ROWS, mode="static")
    samples = context_of(NET, ROWS).samples
    assert 30 < choosing._worst_snr(source, result, samples) < 90


@pytest.mark.parametrize(("proto", "feeds"), [(NET, ROWS), (CONVNET, IMAGES)], ids=["net", "conv"])
def test_statistics_are_enough(tmp_path, proto, feeds):
    session = open_session(proto.SerializeToString(), threads=1)
    model, path = load_model(proto), tmp_path / "statistics"
    observe(model, read_samples(feeds, session.inputs)).save(path)
    context = Context(statistics=load_statistics(path, load_model(proto)))
    result, verdicts = quantized(proto, context=context, mode="static", ranges="mse")
    assert snr(run(proto, feeds), run(result, feeds)) > 30
    with_data, others = quantized(proto, feeds, mode="static", ranges="mse", keep_float="0")
    assert operators(result) == operators(with_data)
    assert {name: each.verdict for name, each in verdicts.items()} == {
        name: each.verdict for name, each in others.items()
    }
    for name in ("w1", "w2", "w3"):
        assert verdicts[name].reason.startswith("int8, computed with integers; ")


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("sequential", [False, True])
def test_the_same_each_time(mode, sequential):
    results = {quantized(NET, ROWS, mode=mode, sequential=sequential)[0] for _ in range(2)}
    results |= {quantized(NET, ROWS, mode=mode, sequential=sequential, requantize=True)[0]}
    assert len(results) == 1


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    ("options", "chosen"),
    [
        ({"include": ("w1",)}, {"w1"}),
        ({"exclude": ("w1",)}, {"w2", "w3"}),
        ({"include": ("w*",), "exclude": ("w2", "w3")}, {"w1"}),
        ({"include": ("v*",)}, set()),
        ({"min_elements": 3000}, {"w1", "w2"}),
    ],
    ids=["include", "exclude", "both", "none", "large"],
)
def test_selections(mode, options, chosen):
    result, verdicts = quantized(NET, ROWS, mode=mode, **options)
    assert {name for name, each in verdicts.items() if each.verdict == "changed"} == chosen
    values = {
        each.name: onnx.numpy_helper.to_array(each)
        for each in onnx.load_from_string(result).graph.initializer
    }
    for each in NET.graph.initializer:
        if each.name not in chosen:
            assert np.array_equal(values[each.name], onnx.numpy_helper.to_array(each))
    for op in MODES[mode]:
        assert operators(result)[op] == len(chosen)


def test_progress(ratios):
    ratios += [0.5, 0.6]
    for mode in (*MODES, "auto"):
        told = []
        context = context_of(NET, ROWS, progress=told.append)
        quantized(NET, context=context, mode=mode)
        assert told == sorted(told)
        assert told[-1] == pytest.approx(1)


@pytest.mark.parametrize(
    ("low", "high", "told"), [(0.3, 0.5, 0.4), (0.9, 0.97, 0.4), (0.3, 0.99, np.inf)]
)
def test_only_the_interval_says_whether_a_result_is_faster(monkeypatch, low, high, told):
    interval = benchmarking.Interval(median=0.4, low=low, high=high)
    monkeypatch.setattr(choosing, "time_ratio", lambda *_: interval)
    source = NET.SerializeToString()
    assert choosing._latency_ratio(source, source, context_of(NET, ROWS).samples) == told
