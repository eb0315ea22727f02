"""The pages of the documentation, short of building them: `make docs` runs what they show."""

import importlib
import pkgutil
import re
import sys
from contextlib import suppress
from pathlib import Path

import click
import numpy as np
import onnx
import pytest

from onnxcomp.cli.commands import command
from onnxcomp.pipeline import available_passes

DOCS = Path(__file__).parents[2] / "docs"
PAGES = {path.relative_to(DOCS / "pages"): path.read_text() for path in DOCS.rglob("*.md")}


@pytest.fixture
def script(monkeypatch):
    monkeypatch.syspath_prepend(DOCS)

    def load(name):
        monkeypatch.delitem(sys.modules, name, raising=False)
        return importlib.import_module(name)

    return load


@pytest.mark.parametrize("name", available_passes())
def test_every_pass_has_a_guide(name):
    guide = PAGES[Path("passes", f"{name}.md")]
    assert f"$ onnxcomp {name} " in guide
    assert f"<!-- options: {name} -->" in guide
    assert guide.count("<!-- graph: ") == 2
    assert "hen not to use it" in guide or "and when not" in guide
    assert f"`{name}`" in PAGES[Path("choosing.md")]


def test_commands_are_valid(script):
    commands_of = script("running").commands_of
    found = []
    for page in PAGES.values():
        for block in re.findall(r"^```console\n(.*?)^```", page, re.MULTILINE | re.DOTALL):
            found += commands_of(block)
    assert found
    for each in found:
        _, name, *arguments = each.split()
        # What only prints something and exits is valid too.
        with suppress(click.exceptions.Exit):
            command().commands[name].make_context(name, arguments)


def test_references_exist():
    names = re.findall(r"^::: (.*)$", "\n".join(PAGES.values()), re.MULTILINE)
    assert names
    for name in names:
        assert pkgutil.resolve_name(name)


def test_only_our_commands_are_run(script):
    with pytest.raises(ValueError, match="something else"):
        script("running").commands_of("$ rm model.onnx\n")


def test_options(script):
    listing = script("listing")
    table = listing.option_table("cluster")
    assert "| `--bits " in table
    assert table.count("\n") + 1 == 2 + len(available_passes()["cluster"].model_fields)
    assert "## quantize" in listing.command_list()


def test_drawing(script, tmp_path):
    make = onnx.helper.make_node
    nodes = [
        make("Cast", ["codes"], ["places"], to=6),
        make("Gather", ["book", "places"], ["w"]),
        make("MatMul", ["x", "w"], ["z"]),
        make("Relu", ["z"], ["y"]),
    ]
    ports = [onnx.helper.make_tensor_value_info(name, 1, [4, 4]) for name in "xy"]
    weights = {"codes": np.zeros((4, 4), np.uint8), "book": np.zeros(16, np.float32)}
    tensors = [onnx.numpy_helper.from_array(*pair[::-1]) for pair in weights.items()]
    graph = onnx.helper.make_graph(nodes, "g", ports[:1], ports[1:], tensors)
    onnx.save(onnx.helper.make_model(graph), tmp_path / "m.onnx")
    drawn = script("drawing").drawn
    assert drawn(tmp_path / "m.onnx", "output", 1).count("<rect") == 1
    whole = drawn(tmp_path / "m.onnx", "output", 2)
    assert (whole.count("<rect"), whole.count("<path")) == (4, 3)
    assert "4x4 uint8" in whole
    assert drawn(tmp_path / "m.onnx", "input", 1).count("<rect") == 3
