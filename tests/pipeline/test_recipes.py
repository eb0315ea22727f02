"""Pipelines as plain data."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnxcomp.errors import OptionError
from onnxcomp.passes import Cluster, Expand
from onnxcomp.pipeline import parse_recipe, read_recipe, recipe, recipe_schema, recipe_toml


@settings(max_examples=50, deadline=None)
@given(
    bits=st.integers(1, 8),
    clusters=st.none() | st.integers(2, 256),
    granularity=st.sampled_from(["scale", "tensor", "group"]),
    exclude=st.lists(st.text(max_size=8), max_size=3),
    depthwise=st.booleans(),
)
def test_any_options_survive(bits, clusters, granularity, exclude, depthwise):
    configured = Cluster(
        bits=bits,
        clusters=clusters,
        granularity=granularity,
        exclude=tuple(exclude),
        depthwise=depthwise,
    )
    assert parse_recipe(json.loads(json.dumps(recipe([configured])))) == (configured,)


def test_every_option_is_written():
    (entry,) = recipe([Cluster()])["passes"]
    assert set(entry) == {"pass", *Cluster.model_fields} - {
        "clusters",
        "size_ratio",
        "max_bytes",
    }
    assert recipe([Cluster(clusters=5), Expand()])["passes"][0]["clusters"] == 5


@pytest.mark.parametrize(
    "data",
    [None, [], {}, {"passes": {}}, {"passes": [], "more": 1}, "cluster"],
)
def test_what_is_no_recipe(data):
    with pytest.raises(OptionError, match=r"^a recipe is a list of tables called 'passes'"):
        parse_recipe(data)


@pytest.mark.parametrize("entry", ["cluster", {}, {"bits": 4}, {"pass": 4}])
def test_what_is_no_entry(entry):
    with pytest.raises(OptionError, match=r"does not say which 'pass' it is$"):
        parse_recipe({"passes": [entry]})


def test_an_empty_recipe():
    assert parse_recipe({"passes": []}) == ()


def test_a_toml_file(tmp_path):
    path = tmp_path / "recipe.toml"
    path.write_text(
        '[[passes]]\npass = "cluster"\nbits = 2\nexclude = ["*embedding*"]\n'
        '[[passes]]\npass = "expand"\n'
    )
    assert read_recipe(path) == (Cluster(bits=2, exclude=("*embedding*",)), Expand())


def test_a_recipe_as_a_toml_file(tmp_path):
    passes = (Cluster(bits=3, exclude=('a "b"\n\\', "*é")), Expand())
    (tmp_path / "recipe.toml").write_text(recipe_toml(recipe(passes)), encoding="utf-8")
    assert read_recipe(tmp_path / "recipe.toml") == passes


def test_a_file_that_is_no_text(tmp_path):
    path = tmp_path / "recipe.toml"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(OptionError, match=r"^recipe '.*recipe\.toml' is not TOML: "):
        read_recipe(path)


def test_a_folder_is_no_recipe(tmp_path):
    with pytest.raises(OptionError, match=r"^cannot read recipe '.*': is a directory$"):
        read_recipe(tmp_path)


def test_the_schema_has_bounds_and_words():
    entries = recipe_schema()["properties"]["passes"]["items"]["oneOf"]
    (options,) = (
        entry["properties"]
        for entry in entries
        if entry["properties"]["pass"]["const"] == "cluster"
    )
    assert (options["bits"]["minimum"], options["bits"]["maximum"]) == (1, 8)
    assert options["granularity"]["enum"] == ["scale", "tensor", "group"]
    assert all(entry["required"] == ["pass"] for entry in entries)


@pytest.mark.parametrize("bits", [True, "4", 4.0])
def test_types_are_not_guessed(bits):
    with pytest.raises(OptionError, match=r"^cluster: bits = "):
        parse_recipe({"passes": [{"pass": "cluster", "bits": bits}]})


def test_nesting_without_end(tmp_path):
    path = tmp_path / "recipe.JSON"
    path.write_text("[" * 100_000)
    with pytest.raises(OptionError, match=r"is not JSON: "):
        read_recipe(path)
