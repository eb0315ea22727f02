"""Providers by name, and never one in place of another."""

import numpy as np
import onnx
import pytest

from onnxcomp.errors import ProviderError
from onnxcomp.runtime import find_provider, installed_providers, open_session, providers

MODEL = """
<ir_version: 10, opset_import: ["" : 21]>
agraph (float[N, 3] x) => (float[N, 3] y) { h = Add(x, x)  y = Relu(h) }
"""


@pytest.fixture
def only_the_cpu(monkeypatch):
    monkeypatch.setattr(providers, "_plugins", lambda: iter(()))
    monkeypatch.setattr(
        "onnxruntime.get_available_providers",
        lambda: ["AzureExecutionProvider", "CPUExecutionProvider"],
    )


@pytest.mark.parametrize("name", ["cpu", "CPU", "CPUExecutionProvider", "cpuexecutionprovider"])
def test_the_cpu_by_any_of_its_names(name):
    assert find_provider(name).name == "CPUExecutionProvider"


def test_the_cpu_is_the_first_installed():
    assert installed_providers()[0].short_name == "cpu"


@pytest.mark.usefixtures("only_the_cpu")
@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("cuda", "provider 'cuda' is not installed here (installed: cpu)"),
        (
            "TensorrtExecutionProvider",
            "provider 'TensorrtExecutionProvider' is not installed here (installed: cpu)",
        ),
        (
            "AzureExecutionProvider",
            "provider 'AzureExecutionProvider' is unknown (installed: cpu)",
        ),
        ("warp", "provider 'warp' is unknown (installed: cpu)"),
    ],
)
def test_a_missing_provider_is_an_error(name, text):
    with pytest.raises(ProviderError) as caught:
        open_session(onnx.parser.parse_model(MODEL).SerializeToString(), name)
    assert str(caught.value) == text


def test_every_short_name_leads_back_to_its_full_name():
    for short, full in providers._FULL_NAMES.items():
        assert providers.Provider(full).short_name in {short, "directml"}


def test_the_cpu_needs_no_plugin(monkeypatch):
    monkeypatch.setattr(providers, "_plugins", lambda: iter(["onnxruntime_ep_absent"]))
    for name in ("cpu", "CPU", "CPUExecutionProvider"):
        assert find_provider(name) == providers.Provider(providers.CPU)
    open_session(onnx.parser.parse_model(MODEL).SerializeToString())


def test_a_broken_plugin_is_named(monkeypatch):
    monkeypatch.setattr(providers, "_plugins", lambda: iter(["onnxruntime_ep_absent"]))
    with pytest.raises(ProviderError) as caught:
        installed_providers()
    assert str(caught.value) == (
        "plug-in 'onnxruntime_ep_absent' cannot be loaded (ModuleNotFoundError:"
        " No module named 'onnxruntime_ep_absent'); reinstall it"
    )


def test_openvino_as_a_plugin():
    pytest.importorskip("onnxruntime_ep_openvino")
    model = onnx.parser.parse_model(MODEL).SerializeToString()
    session = open_session(model, "openvino", threads=1)
    assert session.provider == "openvino"
    x = np.linspace(-1, 1, 6, dtype=np.float32).reshape(2, 3)
    np.testing.assert_allclose(session.run({"x": x})["y"], np.maximum(2 * x, 0), rtol=1e-6)
    assert open_session(model, "OpenVINOExecutionProvider").provider == "openvino"


def test_openvino_computes_in_float32():
    pytest.importorskip("onnxruntime_ep_openvino")
    random = np.random.default_rng(0)
    w = random.standard_normal((256, 256), np.float32)
    model = onnx.parser.parse_model("""
        <ir_version: 10, opset_import: ["" : 21]>
        agraph (float[N, 256] x) => (float[N, 256] y) <float[256, 256] w> { y = MatMul(x, w) }
        """)
    model.graph.initializer.append(onnx.numpy_helper.from_array(w, "w"))
    x = random.standard_normal((8, 256), np.float32)
    result = open_session(model.SerializeToString(), "openvino").run({"x": x})["y"]
    np.testing.assert_allclose(result, x @ w, atol=1e-4)


def test_a_provider_that_runs_no_node_is_an_error():
    pytest.importorskip("onnxruntime_ep_openvino")
    model = onnx.parser.parse_model("""
        <ir_version: 10, opset_import: ["" : 21, "ai.onnx.ml" : 3]>
        agraph (float[N, 3] x) => (float[N, 3] y)
        { y = ai.onnx.ml.Normalizer<norm="L2">(x) }
        """)
    with pytest.raises(ProviderError) as caught:
        open_session(model.SerializeToString(), "openvino")
    assert str(caught.value) == (
        "provider 'openvino' runs no node of the model (CPUExecutionProvider 1);"
        " choose another provider"
    )
