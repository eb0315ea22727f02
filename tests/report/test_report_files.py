"""Where reports go, and in which form."""

import json

import pytest

from onnxcomp.errors import ModelError, OptionError
from onnxcomp.report import check_report, report_markdown, report_page, save_report


def test_the_form_is_that_of_the_name(full, tmp_path):
    for name, text in (
        ("a.html", report_page(full)),
        ("b.MD", report_markdown(full)),
        ("c.json", full.to_json() + "\n"),
    ):
        save_report(full, tmp_path / name)
        assert (tmp_path / name).read_text(encoding="utf-8") == text


def test_the_same_content_as_json(full, tmp_path):
    save_report(full, tmp_path / "report.json")
    data = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    assert data["search"]["chosen"] == 1
    assert data["graph"]["rewrites"][0]["after"] == ["Conv"]
    assert data["environment"]["processor"] == "Some <processor>"
    assert len(data["benchmark"][0]["latency_ratios"]) == 30


def test_another_form(tmp_path):
    with pytest.raises(OptionError, match=r"report '.*r\.pdf': give a name that ends in \.html, "):
        check_report(tmp_path / "r.pdf")


def test_a_folder_that_is_missing(full, tmp_path):
    with pytest.raises(ModelError, match=r"^cannot write .*: no such file or directory$"):
        save_report(full, tmp_path / "gone" / "r.md")
