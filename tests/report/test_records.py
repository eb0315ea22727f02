"""Reports as data and as tables."""

import hashlib
import io
import json

import onnx
import pytest
import zstandard
from rich.console import Console

from onnxcomp import compress
from onnxcomp.graph import load_model, values
from onnxcomp.passes import Cluster
from onnxcomp.report import (
    inspect_model,
    inspection_table,
    record_of_data,
    record_of_files,
    report_html,
    report_table,
)
from onnxcomp.report.tables import size

NAME = "layers[0]/[red]w:cat:"


@pytest.fixture
def report(models, untimed):
    mlp = models["mlp"]
    return compress(mlp.proto, [Cluster()], data=list(mlp.feeds), settings=untimed).report


def printed(renderable, width=120):
    console = Console(file=io.StringIO(), width=width)
    console.print(renderable)
    return console.file.getvalue()


def test_a_model_in_memory_and_on_disk(tmp_path):
    data = b"some model " * 1000
    path = tmp_path / "model.onnx"
    path.write_bytes(data)
    in_memory, on_disk = record_of_data(data), record_of_files([path])
    assert in_memory.path is None
    assert on_disk.path == str(path)
    for record in (in_memory, on_disk):
        assert record.bytes == len(data)
        assert record.sha256 == hashlib.sha256(data).hexdigest()
        expected = len(zstandard.ZstdCompressor(level=3).compress(data))
        assert abs(record.zstd_bytes - expected) < 20


def test_a_model_in_several_files(tmp_path):
    paths = [tmp_path / "model.onnx", tmp_path / "model.data"]
    for path in paths:
        path.write_bytes(path.name.encode() * 100)
    record = record_of_files(paths)
    assert record.path == str(paths[0])
    assert record.bytes == sum(path.stat().st_size for path in paths)
    together = b"".join(path.read_bytes() for path in paths)
    assert record.sha256 == hashlib.sha256(together).hexdigest()


def test_a_report_as_data(report):
    assert json.loads(report.to_json()) == report.to_dict()
    assert report.size_ratio == report.source.bytes / report.output.bytes
    assert "pass" in report.to_dict()["steps"][0]
    assert [each.name for each in report.steps[0].changed] == ["w1", "w2", "w3"]


def test_a_report_as_a_table(report):
    text = printed(report_table(report))
    assert "│ cluster │ applied │ 3       │ 3       │" in text
    assert f"{report.size_ratio:.2f} x smaller" in text
    errors = [each.error for each in report.steps[0].changed]
    places = [text.index(f"{error:.4f}") for error in sorted(errors, reverse=True)]
    assert places == sorted(places)


def test_a_report_as_html(report):
    html = report_html(report)
    assert html.startswith("<pre")
    assert "cluster" in html
    assert "<script" not in html
    assert "http" not in html


def test_names_with_brackets_are_shown_as_they_are(report):
    step = report.steps[0]
    odd = step.changed[0].model_copy(update={"name": NAME})
    tables = report.model_copy(update={"steps": (step.model_copy(update={"tensors": (odd,)}),)})
    assert NAME in printed(report_table(tables))


def test_an_inspection_shows_names_as_they_are(models):
    proto = onnx.ModelProto()
    proto.CopyFrom(models["mlp"].proto)
    proto.metadata_props.add(key="note", value=NAME)
    proto.graph.initializer[2].name = NAME
    proto.graph.node[2].input[1] = NAME
    assert printed(inspection_table(inspect_model(load_model(proto)))).count(NAME) == 2


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 bytes"),
        (999, "999 bytes"),
        (1000, "1.00 kB"),
        (863_047, "863.05 kB"),
        (1_102_594, "1.10 MB"),
        (2_400_000_000_000, "2400.00 GB"),
    ],
)
def test_sizes(count, text):
    assert size(count) == text


def test_an_inspection_loads_no_weight(models, monkeypatch):

    model = load_model(models["mlp"].proto)
    monkeypatch.setattr(values.TensorValues, "load", None)
    looked = inspect_model(model)
    assert looked.bytes == len(models["mlp"].source(None))
    assert looked.operators == {"Gemm": 2, "Relu": 2, "MatMul": 1, "Add": 1}
    assert looked.outputs == ("y: float32 [4, 10]",)
