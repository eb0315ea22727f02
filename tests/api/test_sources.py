"""Everything that `compress` takes a model from, and what it gives back."""

import json

import numpy as np
import onnx
import onnx_graphsurgeon as gs
import pytest

from onnxcomp import Settings, compress, load_model
from onnxcomp.errors import ModelError
from onnxcomp.passes import Cluster
from onnxcomp.runtime import open_session

QUICK = Settings(bench=False, validate=False)


@pytest.fixture
def mlp(models):
    return models["mlp"]


class Program:
    """Looks like a `torch.onnx.ONNXProgram`."""

    def __init__(self, proto):
        self.model_proto = proto


def test_a_stage_after_an_export(mlp, tmp_path):
    model = mlp.proto
    compress(model, [Cluster()]).save(tmp_path / "small.onnx")
    compressed = compress(model, [Cluster()], settings=QUICK).model
    assert onnx.load(tmp_path / "small.onnx") == compressed
    open_session(tmp_path / "small.onnx").run(mlp.feeds[0])


@pytest.mark.parametrize("kind", ["path", "text", "proto", "program", "model"])
def test_every_source_gives_the_same(mlp, tmp_path, kind):
    data = mlp.source(tmp_path)
    path = tmp_path / "model.onnx"
    path.write_bytes(data)
    sources = {
        "path": path,
        "text": str(path),
        "proto": mlp.proto,
        "program": Program(mlp.proto),
        "model": load_model(data),
    }
    before = mlp.proto.SerializeToString(deterministic=True)
    got = compress(sources[kind], [Cluster()], settings=QUICK)
    assert got.to_bytes() == compress(data, [Cluster()], settings=QUICK).to_bytes()
    assert mlp.proto.SerializeToString(deterministic=True) == before
    assert path.read_bytes() == data


@pytest.mark.parametrize("kind", ["graphsurgeon", "onnx_ir"])
def test_objects_of_other_libraries(mlp, kind):
    if kind == "onnx_ir":
        source = pytest.importorskip("onnx_ir").from_proto(mlp.proto)
    else:
        source = gs.import_onnx(mlp.proto)  # noqa: TID251 - as a user does
    compressed = compress(
        source, [Cluster()], data=list(mlp.feeds), settings=Settings(bench=False)
    )
    assert compressed.report.size_ratio > 2
    assert len(compressed.report.steps[0].changed) == 3


def test_what_is_no_model():
    with pytest.raises(ModelError, match=r"^cannot read a model from int; give a path, bytes, "):
        compress(3, [Cluster()])


def test_what_comes_back(mlp, tmp_path, untimed):
    compressed = compress(
        mlp.source(tmp_path), [Cluster()], data=list(mlp.feeds), settings=untimed
    )
    data = compressed.to_bytes()
    assert compressed.model == onnx.load_from_string(data)
    assert compressed.report.output.path is None
    assert compressed.report.output.bytes == len(data)
    saved = compressed.save(tmp_path / "small.onnx")
    assert (tmp_path / "small.onnx").read_bytes() == data
    assert saved.output.path == str(tmp_path / "small.onnx")
    assert saved.output.sha256 == compressed.report.output.sha256
    assert json.loads(saved.to_json()) == saved.to_dict()
    shown = compressed._repr_html_()
    assert "cluster" in shown
    assert "x smaller" in shown
    assert "<script" not in shown


@pytest.mark.parametrize("form", ["feeds", "generator", "stacked", "file", "reader", "made up"])
def test_every_form_of_data(mlp, tmp_path, untimed, form):
    stacked = {"x": np.concatenate([feed["x"] for feed in mlp.feeds])}
    np.savez(tmp_path / "samples.npz", **stacked)

    class Reader:
        def __init__(self):
            self._feeds = iter(mlp.feeds)

        def get_next(self):
            return next(self._feeds, None)

    data, count = {
        "feeds": (list(mlp.feeds), 3),
        "generator": ((feed for feed in mlp.feeds), 3),
        "stacked": (stacked, 12),
        "file": (tmp_path / "samples.npz", 12),
        "reader": (Reader(), 3),
        "made up": (None, 4),
    }[form]
    report = compress(mlp.proto, [Cluster()], data=data, settings=untimed).report
    (validation,) = report.validation
    assert (validation.samples, validation.synthetic) == (count, form == "made up")


def test_nothing_to_do(mlp, tmp_path):
    source = mlp.source(tmp_path)
    compressed = compress(source, [Cluster(exclude=("*",))], data=list(mlp.feeds))
    report = compressed.report
    assert compressed.to_bytes() == source
    assert report.steps[0].status == "nothing"
    assert report.size_ratio == 1
    assert report.benchmark == ()
    assert report.source.sha256 == report.output.sha256


def test_no_passes(mlp, tmp_path):
    compressed = compress(mlp.source(tmp_path), [], data=list(mlp.feeds))
    assert compressed.to_bytes() == mlp.source(tmp_path)
    assert compressed.report.steps == ()


def test_progress(mlp, untimed):
    told = {}
    compress(
        mlp.proto,
        [Cluster()],
        data=list(mlp.feeds),
        settings=untimed,
        progress=lambda what, share: told.setdefault(what, []).append(share),
    )
    assert set(told) == {"cluster", "validating"}
    for shares in told.values():
        assert shares == sorted(shares)
        assert shares[-1] == 1
