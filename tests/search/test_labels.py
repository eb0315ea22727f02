"""Accuracy by labels, on the samples that are held out."""

import numpy as np
import pytest

from onnxcomp import Settings
from onnxcomp.runtime import open_session
from onnxcomp.search.labels import Accuracy


@pytest.mark.parametrize("name", ["dynamic_batch", "mlp"], ids=["any batch", "batches of 4"])
def test_labels_are_those_of_the_held_out_samples(tmp_path, models, name):
    path, data, labels = tmp_path / "model.onnx", tmp_path / "x.npz", tmp_path / "labels.npy"
    path.write_bytes(models[name].proto.SerializeToString())
    x = np.random.default_rng(0).standard_normal((44, 32)).astype(np.float32)
    session = open_session(path)
    (output,) = session.outputs
    batches = [session.run({"x": x[at : at + 4]})[output.name] for at in range(0, 44, 4)]
    np.savez(data, x=x)
    np.save(labels, np.concatenate(batches).argmax(axis=1))
    right = Accuracy(path, data, labels, Settings())(session.run)
    assert len(right) == 8
    assert right.all()
