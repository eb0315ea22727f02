"""The page: whole, safe, and in need of nothing from outside."""

import re
from html.parser import HTMLParser
from math import inf

import pytest

from onnxcomp import compress, sensitivity
from onnxcomp.passes import Cluster
from onnxcomp.report import Report, report_page, sensitivity_page
from onnxcomp.report.pages import SECTIONS

VOID = {"meta", "br", "img", "input", "hr", "link"}
LOADING = {"src", "href", "srcset", "action", "data", "poster", "xlink:href", "background"}


class Page(HTMLParser):
    """What a browser would see, and whether every element is closed."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.attributes, self.text, self.ids, self.open = [], [], "", [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        self.ids += [value for name, value in attrs if name == "id"]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


@pytest.fixture
def page(full):
    return report_page(full)


def test_all_sections(page):
    read = Page(page)
    anchors = [value for _, name, value in read.attributes if name == "href"]
    assert anchors == [f"#{anchor}" for anchor, _ in SECTIONS]
    assert {anchor for anchor, _ in SECTIONS} <= set(read.ids)
    for text in (
        *("4.00 times smaller", "by prune and cluster", "fell from 0.9000 to 0.8900"),
        *("It runs in 0.80 of the original's time", "Missed the floor", "Some <processor>"),
        *("bits = 3", "8 synthetic", "chosen", "cluster(bits=3, exclude="),
    ):
        assert text in " ".join(read.text.replace("\N{NO-BREAK SPACE}", " ").split())
    assert read.tags.count("svg") == 3


def test_nothing_is_loaded_and_nothing_runs(page):
    read = Page(page)
    for tag, name, value in read.attributes:
        assert name not in LOADING or value.startswith("#"), (tag, name, value)
        assert not name.startswith("on")
    assert not {"script", "link", "img", "iframe", "object", "embed", "base"} & set(read.tags)
    assert "http" not in page
    style = re.search(r"<style>(.*)</style>", page, re.DOTALL)[1]
    assert "url(" not in style
    assert "@import" not in style
    assert "@font-face" not in style


def test_names_are_text(page, full):
    assert "<script" not in page
    name = full.steps[0].tensors[0].name
    assert Page(page).text.count(name) >= 8


def test_light_and_dark_narrow_and_printed(page):
    for query in ("(prefers-color-scheme: dark)", "(max-width: 40rem)", "print"):
        assert f"@media {query}" in page
    assert '<meta name="viewport" content="width=device-width, initial-scale=1">' in page


def test_for_a_screen_reader(page):
    read = Page(page)
    assert '<html lang="en">' in page
    assert read.tags.count("h1") == read.tags.count("main") == 1
    named = {tag for tag, name, value in read.attributes if name == "aria-label" and value}
    assert "svg" in named
    headers = sum(name == "scope" for _, name, _ in read.attributes)
    assert headers == read.tags.count("th")
    # What scrolls can be scrolled from the keyboard.
    scrolled = page.count('class="scroll"')
    assert scrolled == page.count('class="scroll" tabindex="0" role="region" aria-label="')


def test_a_report_with_next_to_nothing(full):
    bare = Report(version="1", source=full.source, output=full.source)
    read = Page(report_page(bare))
    assert read.ids == ["result", "environment"]
    assert "svg" not in read.tags


def test_a_real_run(models, untimed):
    mlp = models["mlp"]
    report = compress(mlp.proto, [Cluster()], data=list(mlp.feeds), settings=untimed).report
    read = Page(report_page(report))
    assert "by cluster" in read.text
    assert 'pass = "cluster"' in read.text
    assert Report.model_validate_json(
        report.model_dump_json(exclude={"size_ratio"}, by_alias=True)
    )


def test_many_layers_are_folded(full):
    tensors = tuple(
        full.steps[0].tensors[0].model_copy(update={"name": f"w{place}"}) for place in range(50)
    )
    steps = (full.steps[0].model_copy(update={"tensors": tensors}),)
    read = Page(report_page(full.model_copy(update={"steps": steps})))
    assert "20 smaller ones that were changed" in read.text


def test_many_candidates_are_folded(full):
    one = full.search.trials[0]
    trials = tuple(one.model_copy(update={"number": number}) for number in range(50))
    found = full.search.model_copy(update={"trials": trials, "chosen": 7})
    text = Page(report_page(full.model_copy(update={"search": found}))).text
    assert "All 50 candidates" in text


def test_a_ranking(models):
    mlp = models["mlp"]
    found = sensitivity(mlp.proto, Cluster(bits=2), data=list(mlp.feeds))
    page = sensitivity_page(found)
    read = Page(page)
    assert found.title in read.text
    assert "http" not in page
    for each in found.weights:
        assert each.name in read.text
        assert f"{each.squared_error:.3g}" in read.text
    broken = found.weights[0].model_copy(update={"outputs": (), "failure": "<b>"})
    assert broken.squared_error == inf
    page = sensitivity_page(found.model_copy(update={"weights": (broken,)}))
    assert "&lt;b&gt;" in page
    assert "fails" in Page(page).text
