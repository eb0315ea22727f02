"""The profile of the processor that quantize runs on, and that what it finds is written down."""

import platform
import subprocess

import onnx
import pytest
from quantizing import built, context_of, feeds_of, matrix

from onnxcomp import load_model
from onnxcomp.graph import model_bytes, weights
from onnxcomp.passes import Quantize
from onnxcomp.pipeline import parse_recipe, recipe
from onnxcomp_passes.quantize import processors
from onnxcomp_passes.quantize import quantize as module

NET = built(
    "(float[N,48] x) => (float[N,64] y) { a = MatMul(x, w)  y = Tanh(a) }",
    {"w": matrix(48, 64)},
)
ROWS = feeds_of(8, x=(4, 48))
CPUINFO = """processor\t: 0
model name\t: Some processor
flags\t\t: fpu sse2 ssse3 avx2{more}
bugs\t\t: none

processor\t: 1
flags\t\t: fpu
"""


@pytest.mark.parametrize(
    ("machine", "found", "profile"),
    [
        ("x86_64", {"sse2", "avx2", "avx512f"}, "avx2"),
        ("AMD64", {"sse2"}, "avx2"),
        ("x86_64", {"avx2", "avx512_vnni"}, "cpu"),
        ("x86_64", {"avx2", "avx_vnni"}, "cpu"),
        ("x86_64", set(), "cpu"),
        ("aarch64", {"asimd"}, "cpu"),
        ("arm64", set(), "cpu"),
    ],
)
def test_which_profile_a_processor_has(machine, found, profile):
    assert processors.profile_of(machine, found) == profile


@pytest.mark.parametrize("more", ["", " avx512_vnni"])
def test_linux_tells(monkeypatch, tmp_path, more):
    monkeypatch.setattr(processors, "FLAGS", tmp_path / "cpuinfo")
    assert processors.instruction_sets("Linux") == frozenset()
    (tmp_path / "cpuinfo").write_text(CPUINFO.format(more=more), encoding="utf-8")
    found = processors.instruction_sets("Linux")
    assert found == {"fpu", "sse2", "ssse3", "avx2", *more.split()}
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(platform, "system", lambda: "Linux")
    assert processors.detected_profile() == ("cpu" if more else "avx2")
    (tmp_path / "cpuinfo").write_text("Features : asimd\n", encoding="utf-8")
    assert processors.instruction_sets("Linux") == frozenset()


def test_macos_tells(monkeypatch):
    def run(command, **_):
        assert command[0] == "/usr/sbin/sysctl"
        return subprocess.CompletedProcess(command, 0, "FPU SSE2\nAVX2 AVX512VNNI\n", "")

    monkeypatch.setattr(subprocess, "run", run)
    assert processors.instruction_sets("Darwin") == {"fpu", "sse2", "avx2", "avx512vnni"}

    def fail(*_, **__):
        raise FileNotFoundError

    monkeypatch.setattr(subprocess, "run", fail)
    assert processors.instruction_sets("Darwin") == frozenset()
    assert processors.instruction_sets("Windows") == frozenset()


def applied(one):
    told = []
    model = load_model(NET)
    one.apply(model, context_of(NET, ROWS, decide=told.extend))
    return model_bytes(model), told


@pytest.mark.parametrize("mode", ["static", "dynamic"])
@pytest.mark.parametrize(("profile", "most"), [("avx2", 64), ("cpu", 127)])
def test_what_was_found_is_written_down(monkeypatch, mode, profile, most):
    monkeypatch.setattr(module, "detected_profile", lambda: profile)
    result, told = applied(Quantize(mode=mode))
    assert told == [Quantize(mode=mode, profile=profile)]
    codes = [
        onnx.numpy_helper.to_array(each)
        for each in onnx.load_from_string(result).graph.initializer
        if each.data_type == onnx.TensorProto.INT8 and len(each.dims) == 2
    ]
    assert [abs(each.astype(int)).max() for each in codes] == [most]
    monkeypatch.setattr(module, "detected_profile", lambda: "generic")
    replayed, again = applied(*parse_recipe(recipe(told)))
    assert replayed == result
    assert again == []


def test_stored_weights_are_the_same_everywhere(monkeypatch):
    files = []
    for profile in ("avx2", "cpu"):
        monkeypatch.setattr(module, "detected_profile", lambda found=profile: found)
        result, told = applied(Quantize(mode="weights"))
        assert told == []
        files.append(result)
    assert files[0] == files[1]
    assert next(weights(load_model(files[0]))).name == "w"
