"""What tests of several folders share."""

import numpy as np
import pytest

from onnxcomp import Settings
from onnxcomp.testing import small_models

UNTIMED = Settings(bench=False)


@pytest.fixture(scope="session")
def models():
    return {model.name: model for model in small_models()}


@pytest.fixture
def untimed():
    return UNTIMED


@pytest.fixture
def workplace(tmp_path, monkeypatch, models):
    """A working directory with model.onnx and samples.npz in it."""
    monkeypatch.chdir(tmp_path)
    mlp = models["mlp"]
    (tmp_path / "model.onnx").write_bytes(mlp.source(tmp_path))
    np.savez("samples.npz", x=np.concatenate([feed["x"] for feed in mlp.feeds]))
    return tmp_path


def pytest_collection_modifyitems(items):
    """Begin with what takes longest, so that no worker is left alone with it at the end."""
    items.sort(key=lambda item: not item.path.name.startswith("test_readme"))
