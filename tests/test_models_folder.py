"""The models that the demo compresses are what their description says."""

import importlib.util
import re
from pathlib import Path

import numpy as np
import onnx
import pytest

from onnxcomp import Settings, compress
from onnxcomp.passes import Cluster
from onnxcomp.runtime import open_session

FOLDER = Path(__file__).parents[1] / "models"
MODELS = sorted(FOLDER.glob("*.onnx"))
LARGEST = 1_500_000
MOST_DROP = 0.02


@pytest.fixture(scope="module")
def accuracy():
    spec = importlib.util.spec_from_file_location("evaluate", FOLDER / "evaluate.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.accuracy


def described(path):
    """Return parameters, bytes and accuracy from the model's line in the table of the README."""
    text = (FOLDER / "README.md").read_text(encoding="utf-8")
    line = next(line for line in text.splitlines() if line.startswith(f"| `{path.name}` |"))
    cells = [cell.strip() for cell in line.strip("|").split("|")]
    return int(cells[2].replace(",", "")), int(cells[3].replace(",", "")), float(cells[5])


def test_there_are_models():
    names = ["fashion_cnn.onnx", "fashion_mlp.onnx", "fashion_mobilenet.onnx"]
    assert [path.name for path in MODELS] == names


@pytest.mark.parametrize("path", MODELS, ids=lambda path: path.stem)
def test_a_model_is_what_its_description_says(path, accuracy):
    onnx.checker.check_model(path, full_check=True)
    parameters, size, measured = described(path)
    assert path.stat().st_size == size < LARGEST
    held = sum(np.prod(each.dims) for each in onnx.load(path).graph.initializer)
    assert held >= parameters
    session = open_session(path)
    assert accuracy(session.run).mean() == pytest.approx(measured, abs=0.0011)


@pytest.mark.parametrize("path", MODELS, ids=lambda path: path.stem)
def test_four_bits_keep_the_accuracy(path, accuracy):
    settings = Settings(evaluate=accuracy, max_drop=MOST_DROP, bench=False, samples=32)
    data = FOLDER / "fashion_calibration.npz"
    report = compress(path, [Cluster(bits=4)], data=data, settings=settings).report
    # Depthwise filters and biases stay, and codebooks and graph weigh more in a model so small.
    assert report.size_ratio > (3 if path.stem == "fashion_mobilenet" else 5)
    assert report.metric.drop <= MOST_DROP


def test_data_files_have_a_licence():
    text = (FOLDER / "README.md").read_text(encoding="utf-8")
    for path in FOLDER.glob("*.npz"):
        assert re.search(rf"`{path.name}`", text)
