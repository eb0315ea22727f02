"""Inputs and outputs that are integers: the same model, for those who know the scale."""

import json

import numpy as np
import onnx
import onnxruntime
import pytest
from quantizing import CONVNET, IMAGES, built, fused_operators, quantized, run, snr, weight

import onnxcomp
from onnxcomp.api import Settings
from onnxcomp.errors import OptionError
from onnxcomp.graph import load_model
from onnxcomp.passes import Quantize
from onnxcomp.pipeline import Context
from onnxcomp.runtime import open_session, read_samples
from onnxcomp.runtime.evaluation import evaluate
from onnxcomp.statistics import observe

STATIC = {"mode": "static", "keep_float": "0"}
TWO = built(
    """(float[N,16,8,8] x, float[N,16,8,8] z, int64[1] k)
        => (float[N,16,8,8] y, float[N,16,8,8] s) {
        c = Conv(x, w)  d = Tanh(z)  s = Add(c, d)  f = Cast <to = 1> (k)  y = Mul(s, f) }""",
    {"w": weight(16, 16, 1, 1)},
)
PAIRS = [
    {**feed, "z": feed["x"][::-1].copy(), "k": np.array([place % 2 + 1])}
    for place, feed in enumerate(IMAGES)
]


def by_hand(data, feeds):
    """Run a model as someone does who has read the metadata, with ONNX Runtime alone."""
    (entry,) = [
        x for x in onnx.load_from_string(data).metadata_props if x.key.endswith("interface")
    ]
    ports = json.loads(entry.value)
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    names = [each.name for each in session.get_outputs()]
    found = []
    for feed in feeds:
        coded = {}
        for name, values in feed.items():
            coded[name] = values
            if name in ports:
                info, step = np.iinfo(ports[name]["type"]), np.float32(ports[name]["scale"])
                codes = np.rint(values / step) + ports[name]["zero_point"]
                coded[name] = np.clip(codes, info.min, info.max).astype(info.dtype)
        given = dict(zip(names, session.run(names, coded), strict=True))
        for name in names:
            port = ports[name]
            assert given[name].dtype == port["type"]
            centred = given[name].astype(np.float32) - port["zero_point"]
            given[name] = (centred * np.float32(port["scale"])).astype(np.float32)
        found.append(given)
    return found


@pytest.mark.parametrize("kind", ["uint8", "int8"])
@pytest.mark.parametrize(("proto", "feeds"), [(CONVNET, IMAGES), (TWO, PAIRS)])
def test_floats_stay_what_they_were(kind, proto, feeds):
    result, _ = quantized(proto, feeds, io_dtype=kind, **STATIC)
    plain, _ = quantized(proto, feeds, **STATIC)
    code = onnx.helper.np_dtype_to_tensor_dtype(np.dtype(kind))
    made = onnx.load_from_string(result).graph
    before = [*proto.graph.input, *proto.graph.output]
    for port, old in zip([*made.input, *made.output], before, strict=True):
        is_float = old.type.tensor_type.elem_type == onnx.TensorProto.FLOAT
        assert port.name == old.name
        assert port.type.tensor_type.elem_type == (
            code if is_float else old.type.tensor_type.elem_type
        )
    wanted, found = run(proto, feeds), run(result, feeds)
    assert snr(wanted, found) > min(35, snr(wanted, run(plain, feeds)) - 8)
    assert snr(found, by_hand(result, feeds)) > 100


def test_nothing_is_rounded_at_the_input_any_more(tmp_path):
    result, _ = quantized(CONVNET, IMAGES, io_dtype="uint8", **STATIC)
    (reader,) = [n for n in onnx.load_from_string(result).graph.node if "x" in n.input]
    assert reader.op_type == "DequantizeLinear"
    counts = fused_operators(result, tmp_path)
    assert counts["QLinearConv"] == 3
    assert counts["QuantizeLinear"] == 1


def test_a_session_takes_and_gives_floats():
    result, _ = quantized(CONVNET, IMAGES, io_dtype="int8", **STATIC)
    session = open_session(result)
    assert [port.type for port in (*session.inputs, *session.outputs)] == ["tensor(float)"] * 2
    (coded,) = session.encoded(IMAGES[0]).values()
    assert coded.dtype == np.int8
    given = session.run({"x": coded})["y"]
    assert np.array_equal(given, session.run(IMAGES[0])["y"])
    assert session.bare.run({"x": coded})["y"].dtype == np.int8


def test_metadata_that_are_not_true_are_not_believed():
    result, _ = quantized(CONVNET, IMAGES, io_dtype="int8", **STATIC)
    (entry,) = [x for x in onnx.load_from_string(result).metadata_props if "interface" in x.key]
    for value in (entry.value, "nonsense", '{"x": 1}', '["x"]'):
        proto = onnx.ModelProto()
        proto.CopyFrom(CONVNET)
        proto.metadata_props.add(key=entry.key, value=value)
        assert np.array_equal(run(proto, IMAGES)[0]["y"], run(CONVNET, IMAGES)[0]["y"])


def test_the_report_says_what_integers_stand_for():
    quantize = Quantize(io_dtype="uint8", **STATIC)
    compressed = onnxcomp.compress(
        CONVNET, [quantize], data=IMAGES, settings=Settings(bench=False)
    )
    (step,) = compressed.report.steps
    assert step.status == "applied"
    assert "x is uint8 (scale " in step.reason
    assert "y is uint8 (scale " in step.reason
    assert compressed.report.validation[0].worst_snr_db > 30

    def sees_floats(predict):
        return predict(IMAGES[0])["y"].dtype == np.float32

    assert evaluate(compressed.to_bytes(), sees_floats).value == 1


def test_statistics_that_do_not_know_the_output():
    model = load_model(CONVNET)
    samples = read_samples(IMAGES, open_session(CONVNET.SerializeToString()).inputs)
    context = Context(statistics=observe(model, samples))
    Quantize(io_dtype="uint8", **STATIC).apply(model, context)
    model = load_model(TWO)
    samples = read_samples(PAIRS, open_session(TWO.SerializeToString()).inputs)
    with pytest.raises(OptionError, match=r"the statistics have no range of '.'; give --data"):
        Quantize(io_dtype="uint8", **STATIC).apply(
            model, Context(statistics=observe(model, samples))
        )


def test_what_cannot_be():
    with pytest.raises(OptionError, match=r"io_dtype = 'int8' needs mode static, .* not auto"):
        Quantize(io_dtype="int8")
    proto = built("(int64[N] i) => (int64[N] y) { a = Gather(w, i)  y = ArgMax(a) }", {})
    proto.graph.initializer.append(onnx.numpy_helper.from_array(weight(20, 20), "w"))
    feeds = [{"i": np.array([0, 1])}]
    with pytest.raises(OptionError, match="no input or output is float32"):
        quantized(proto, feeds, io_dtype="int8", **STATIC)
