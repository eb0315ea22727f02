"""The commands that search, as they are typed."""

import json
import os
import subprocess
import sys
from contextlib import suppress

import numpy as np
import pytest

from onnxcomp.pipeline import available_presets, read_recipe

REPLACED = (
    "--report 'model.onnx.html' would overwrite the model, which this run reads; give another name"
)

MAIN = "from onnxcomp.cli import main; main()"

RECIPE = """
[[passes]]
pass = "quantize"
mode = "weights"
min_elements = 16
"""


@pytest.fixture
def target(workplace):
    (workplace / "mine.toml").write_text(RECIPE)
    few = np.load("samples.npz")["x"]
    np.savez("few.npz", x=few)
    np.savez("samples.npz", x=np.concatenate([few] * 4))
    return ("--target", "mine.toml", "--cache", "cache")


def test_compress(workplace, call, target):
    done = call(
        *(
            "compress",
            "model.onnx",
            "-o",
            "small.onnx",
            "--data",
            "samples.npz",
            "--min-snr",
            "20",
        ),
        *(*target, "--goal", "balanced", "--report", "small.html"),
    )
    assert (done.code, done.out) == (0, "small.onnx\n")
    assert "kept" in done.err
    assert "quantize(mode=weights, min_elements=16)" in done.err
    assert "quantize(mode=weights" in (workplace / "small.html").read_text()
    again = call(
        *(
            "compress",
            "model.onnx",
            "-o",
            "again.onnx",
            "--data",
            "samples.npz",
            "--min-snr",
            "20",
        ),
        *(*target, "--goal", "balanced", "--json", "--quiet"),
    )
    assert json.loads(again.out)["search"]["floor"] == "an SNR of at least 20 dB"
    assert (workplace / "again.onnx").read_bytes() == (workplace / "small.onnx").read_bytes()


def test_nothing_better(workplace, call, target):
    (workplace / "small.onnx").write_bytes(b"old")
    done = call(
        *("compress", "model.onnx", "-o", "small.onnx", "--data", "samples.npz"),
        *("--min-snr", "500", *target),
    )
    assert done.code == 3
    assert done.err.splitlines()[-1] == (
        "error: nothing among 2 pipelines is better than the original and keeps the floor (an SNR "
        "of at least 500 dB); give more --minutes, a larger --max-drop or another --target"
    )
    assert (workplace / "small.onnx").read_bytes() == b"old"


def test_nothing_better_is_told_as_data_too(workplace, call, target):
    done = call(
        *("compress", "model.onnx", "-o", "small.onnx", "--data", "samples.npz"),
        *("--min-snr", "500", *target, "--json", "--quiet", "--report", "small.md"),
    )
    assert done.code == 3
    told = json.loads(done.out)
    assert told["search"]["chosen"] is None
    assert told["missed"].startswith("nothing among 2 pipelines")
    assert "It misses the floor" in (workplace / "small.md").read_text()


EVALUATOR = """
from pathlib import Path
import numpy as np

def close(predict):
    (found,) = predict({"x": np.ones((4, 32), np.float32)}).values()
    first = Path("first.npy")
    if not first.exists():
        np.save(first, found)
    return 1.0 - Path("strict").exists() * float((found != np.load(first)).any())
"""


def test_a_result_that_misses_the_floor_in_the_end_is_not_written(workplace, call, target):
    (workplace / "metric.py").write_text(EVALUATOR)
    command = (
        *("compress", "model.onnx", "-o", "small.onnx", "--data", "samples.npz", *target),
        *("--evaluate", "metric.py:close", "--goal", "balanced", "--quiet"),
    )
    assert call(*command).code == 0
    (workplace / "strict").touch()
    (workplace / "small.onnx").write_bytes(b"old")
    done = call(*command)
    assert (done.code, done.out) == (3, "")
    assert done.err.startswith(
        "error: the best pipeline misses the floor when it is measured again: the metric dropped"
    )
    assert len(done.err.splitlines()) == 1
    assert (workplace / "small.onnx").read_bytes() == b"old"


def test_a_folder_that_holds_models(workplace, call, target):
    (workplace / "front").mkdir()
    (workplace / "front" / "000.onnx").write_bytes(b"old")
    done = call("search", "model.onnx", "-o", "front", "--data", "samples.npz", *target)
    assert done.code == 2
    assert done.err == "error: folder 'front' holds models or recipes already; give another\n"


@pytest.mark.parametrize("name", available_presets())
def test_show_recipe(workplace, call, name):
    done = call("compress", "--show-recipe", name)
    assert done.code == 0
    (workplace / "shown.toml").write_text(done.out)
    assert read_recipe(workplace / "shown.toml") == read_recipe(available_presets()[name])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ("--target", "egde"),
            "unknown target 'egde'; did you mean 'edge'? (or give a recipe file)",
        ),
        (
            ("--labels", "no.npy", "--data", "samples.npz"),
            "cannot read labels 'no.npy': no such file",
        ),
        (
            ("--labels", "empty.npy", "--data", "samples.npz"),
            "cannot read labels 'empty.npy': not a .npy or .npz file",
        ),
        (
            ("--labels", "many.npy", "--data", "samples.npz"),
            "many.npy: 96 labels for 48 samples; give one each",
        ),
        (("--report", "model.onnx.html"), REPLACED),
        (("--show-recipe", "no.toml"), "cannot read recipe 'no.toml': no such file or directory"),
        (("--labels", "no.npy"), "labels needs data: the samples that the labels are of"),
        (("--minutes", "0"), "search: minutes = 0.0: input should be greater than 0"),
        (
            ("--data", "few.npz"),
            "few.npz: 3 batches of 4 are too few to hold one of 5 out; give 5 at least",
        ),
        (("-o", "no/small.onnx"), "cannot write 'no/small.onnx': no folder 'no'; make it first"),
    ],
)
def test_mistakes(workplace, target, call, options, message):
    (workplace / "empty.npy").write_bytes(b"")
    np.save(workplace / "many.npy", np.zeros(96, np.int64))
    (workplace / "model.onnx.html").write_bytes((workplace / "model.onnx").read_bytes())
    model = "model.onnx.html" if "--report" in options else "model.onnx"
    done = call("compress", model, "-o", "small.onnx", *target, *options)
    assert done.code in {1, 2}
    assert message in done.err
    assert len(done.err.splitlines()) == 1
    assert not (workplace / "small.onnx").exists()


def test_a_search_that_is_terminated_writes_the_best_so_far(workplace):
    np.savez("samples.npz", x=np.concatenate([np.load("samples.npz")["x"]] * 4))
    command = [sys.executable, "-c", MAIN, "compress", "model.onnx", "-o", "small.onnx"]
    options = ["--data", "samples.npz", "--cache", "cache", "--minutes", "10"]
    process = subprocess.Popen(
        [*command, *options], stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        for line in process.stderr:
            if "kept" in line and "quantize" in line:
                process.terminate()
                break
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert (process.returncode, out) == (0, "small.onnx\n")
    assert "latency on" not in err
    assert (workplace / "small.onnx").stat().st_size < (workplace / "model.onnx").stat().st_size


@pytest.mark.usefixtures("workplace")
@pytest.mark.skipif(sys.platform == "win32", reason="there are no pseudo-terminals")
def test_a_terminal_sees_what_is_being_done():
    np.savez("samples.npz", x=np.concatenate([np.load("samples.npz")["x"]] * 4))
    options = ["--data", "samples.npz", "--cache", "cache", "--minutes", "0.1", "--json"]
    reader, terminal = os.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", MAIN, "compress", "model.onnx", "-o", "small.onnx", *options],
        stderr=terminal,
        stdout=subprocess.DEVNULL,
    )
    os.close(terminal)
    shown = b""
    # A terminal whose other end is closed gives an error on Linux.
    with suppress(OSError):
        while part := os.read(reader, 1 << 16):
            shown += part
    os.close(reader)
    assert process.wait() == 0
    assert shown.startswith(b"onnxcomp: loading\r\x1b[2K")
    for what in (b"running the original", b"trying simplify, quantize(", b"checking the best"):
        assert what in shown
