"""Rankings as tables and as pictures."""

import io
from math import inf

import matplotlib as mpl
import pytest
from rich.console import Console

from onnxcomp.errors import ModelError, OptionError
from onnxcomp.report import (
    RankedWeight,
    Sensitivity,
    Treatment,
    save_sensitivity_plot,
    sensitivity_table,
)
from onnxcomp.validation import OutputComparison

NAME = "layers[0]/[red]w$a_{b:cat:"


def output(snr_db, name="y", dtype="float32"):
    return OutputComparison(
        name=name,
        dtype=dtype,
        cosine=1.0,
        snr_db=snr_db,
        squared_error=10 ** (-snr_db / 10),
        max_abs=0.1,
        agreement=1.0,
        compared=80,
    )


def ranked(rank, *outputs, name="w", failure=None):
    return RankedWeight(
        rank=rank,
        name=name,
        op_types=("Gemm",),
        shape=(30, 20),
        share=0.125,
        reason="coded",
        weight_error=0.1,
        bytes_before=2400,
        bytes_after=400,
        outputs=outputs,
        failure=failure,
    )


@pytest.fixture
def found():
    weights = (
        ranked(1, name="broken", failure="cannot load the result on cpu: [why]"),
        ranked(2, output(-inf), name="lost"),
        ranked(3, output(-3.0), name="loud"),
        ranked(4, output(20.0), output(10.0, "z"), output(1.0, "label", "int64"), name=NAME),
        ranked(5, output(inf), name="exact" * 30),
    )
    return Sensitivity(
        version="1",
        source="some/folder/model.onnx",
        name="cluster",
        options={},
        provider="cpu",
        samples=12,
        weights=weights,
        together=Treatment(bytes_before=9000, bytes_after=1000, outputs=(output(8.0),)),
    )


def printed(renderable, width=120):
    console = Console(file=io.StringIO(), width=width)
    console.print(renderable)
    return console.file.getvalue()


def test_the_worst_float_output_is_what_counts(found):
    assert [each.snr_db for each in found.weights] == [-inf, -inf, -3, 10, inf]
    assert [each.squared_error for each in found.weights] == pytest.approx(
        [inf, inf, 10**0.3, 0.1, 0]
    )
    assert found.sum_of_errors == inf
    finite = found.model_copy(update={"weights": found.weights[2:]})
    assert finite.sum_of_errors == pytest.approx(10**0.3 + 0.1)


def test_the_table(found):
    text = printed(sensitivity_table(found))
    assert "sensitivity of model.onnx to cluster" in text
    rows = [line for line in text.splitlines() if "30x20" in line]
    assert [row.split("│")[8].strip() for row in rows] == [
        "fails",
        "not finite",
        "-3.0",
        "10.0",
        "identical",
    ]
    assert "12.5%" in rows[0]
    assert "2.00 kB" in rows[0]
    assert NAME in text
    assert "broken: cannot load the result on cpu: [why]" in text
    assert text.endswith("5 weights, each changed alone; 12 samples on cpu\n")


def test_the_table_says_what_it_leaves_out(found):
    text = printed(sensitivity_table(found, 1))
    assert "lost" not in text
    assert text.endswith("1 of 5 weights, each changed alone; 12 samples on cpu\n")


def test_a_result_that_fails_as_a_whole(found):
    together = Treatment(bytes_before=1, bytes_after=1, outputs=(), failure="cannot load it")
    failed = found.model_copy(update={"together": together, "source": None})
    text = printed(sensitivity_table(failed))
    assert "all together: cannot load it" in text
    assert "sensitivity of the model to cluster" in text


@pytest.mark.parametrize("top", [1, 20])
def test_a_picture_has_every_name_and_number(found, tmp_path, monkeypatch, top):
    monkeypatch.setitem(mpl.rcParams, "svg.fonttype", "none")
    save_sensitivity_plot(found, tmp_path / "plot.svg", top)
    text = (tmp_path / "plot.svg").read_text()
    assert "broken (Gemm 30x20)" in text
    assert "all together: 8.0 dB" in text
    title = "sensitivity of model.onnx to cluster"
    if top == 1:
        assert f"{title}: the worst 1 of 5 weights" in text
        return
    assert f"{title}<" in text
    assert NAME in text
    assert "exactexactexactexactexac…xactexactexactexactexact (Gemm 30x20)" in text
    for words in ("fails", "not finite", "-3.0", "10.0", "identical"):
        assert f">{words}</text>" in text


@pytest.mark.parametrize("name", ["plot.png", "plot.svg"])
def test_the_same_ranking_gives_the_same_picture(found, tmp_path, name):
    written = []
    for _ in range(2):
        save_sensitivity_plot(found, tmp_path / name)
        written.append((tmp_path / name).read_bytes())
    assert written[0] == written[1]
    assert [each.name for each in tmp_path.iterdir()] == [name]


def test_pictures_that_cannot_be_made(found, tmp_path):
    with pytest.raises(OptionError, match=r"^plot 'a\.pdf': give a name that ends in \.png or "):
        save_sensitivity_plot(found, tmp_path.joinpath("a.pdf").relative_to(tmp_path))
    with pytest.raises(ModelError, match=r"^cannot write '.*none/a\.png': no such file or "):
        save_sensitivity_plot(found, tmp_path / "none" / "a.png")
