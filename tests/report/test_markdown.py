"""Markdown for a pull request: tables that stay tables, names that stay text."""

import re

import pytest

from onnxcomp import sensitivity
from onnxcomp.passes import Cluster
from onnxcomp.report import Report, report_markdown, sensitivity_markdown


@pytest.fixture
def text(full):
    return report_markdown(full)


def test_the_numbers_are_in_sight_and_the_rest_is_folded(text):
    before, _, folded = text.partition("<details>")
    assert "| 1.00 kB | 250 bytes | 4.00 x smaller |" in before
    assert "drop +0.0100" in before
    names = re.findall(r"<details><summary>(.*)</summary>", f"<details>{folded}")
    assert names[1:] == ["Steps", "2 weights", "Outputs", "Graph", "Recipe", "Environment"]
    assert text.count("<details>") == text.count("</details>")


def test_tables_keep_their_columns(text):
    for table in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE):
        assert len({line.count("|") for line in table.splitlines()}) == 1


def test_names_are_text(text):
    outside = re.sub(r"```toml.*?```", "", text, flags=re.DOTALL)
    tags = set(re.findall(r"<[^>]*>", outside))
    assert tags == {"<details>", "</details>", "<summary>", "</summary>"}
    assert not set("`*_@") & set(outside)


def test_a_fence_is_longer_than_any_in_the_recipe(full):
    recipe = {"passes": [{"pass": "cluster", "exclude": ["````"]}]}
    text = report_markdown(full.model_copy(update={"recipe": recipe}))
    assert "`````toml\n" in text


def test_a_report_with_next_to_nothing(full):
    text = report_markdown(Report(version="1", source=full.source, output=full.output))
    assert re.findall(r"<summary>(.*)</summary>", text) == ["Environment"]


def test_a_ranking(models):
    mlp = models["mlp"]
    found = sensitivity(mlp.proto, Cluster(bits=2), data=list(mlp.feeds))
    lines = sensitivity_markdown(found).splitlines()
    assert lines[0] == f"### {found.title}"
    assert len([line for line in lines if line.startswith("| ")]) == len(found.weights) + 3


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a_b [0.1, 0.2] (c): d", "a_b [0.1, 0.2] (c): d"),
        ("[x](y)", "[x&#93;(y)"),
        ("_x_ :tada: c", "&#95;x&#95; &#58;tada: c"),
        ("a|b\n#1 @c", "a&#124;b &#35;1 &#64;c"),
    ],
)
def test_only_what_has_a_meaning_is_escaped(full, name, expected):
    source = full.source.model_copy(update={"path": name})
    report = Report(version="1", source=source, output=full.output)
    assert report_markdown(report).startswith(f"### {expected} → small.onnx\n")
