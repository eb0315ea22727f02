"""Recipes: pipelines as TOML or JSON.

::

    [[passes]]
    pass = "cluster"
    bits = 4
    exclude = ["*embedding*"]
"""

from __future__ import annotations

import json
import tomllib
from typing import TYPE_CHECKING, Any

import tomli_w

from onnxcomp.errors import OptionError
from onnxcomp.options import did_you_mean
from onnxcomp.pipeline.registry import available_passes

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from onnxcomp.pipeline.passes import Pass


def recipe(passes: Sequence[Pass]) -> dict[str, Any]:
    """Return a pipeline as plain data, every option included; `parse_recipe` reads it back."""
    entries = [
        {"pass": each.name, **each.model_dump(mode="json", exclude_none=True)} for each in passes
    ]
    return {"passes": entries}


def parse_recipe(data: Any) -> tuple[Pass, ...]:
    """Return the passes that plain data describes.

    Raises:
        OptionError: The data has another form, an unknown pass or a wrong option.
    """
    if (
        not isinstance(data, dict)
        or set(data) != {"passes"}
        or not isinstance(data["passes"], list)
    ):
        raise OptionError("a recipe is a list of tables called 'passes', and nothing else")
    return tuple(_parse_entry(entry) for entry in data["passes"])


def _parse_entry(entry: Any) -> Pass:
    if not isinstance(entry, dict) or not isinstance(entry.get("pass"), str):
        raise OptionError(f"recipe entry {entry!r} does not say which 'pass' it is")
    known = available_passes()
    name = entry["pass"]
    if name not in known:
        raise OptionError(f"unknown pass {name!r}; {did_you_mean(name, list(known))}")
    options = {
        key: tuple(value) if isinstance(value, list) else value
        for key, value in entry.items()
        if key != "pass"
    }
    return known[name].model_validate(options, strict=True)


def read_recipe(path: Path) -> tuple[Pass, ...]:
    """Read a recipe from a ``.toml`` or ``.json`` file.

    Raises:
        OptionError: The file cannot be read or is not a recipe.
    """
    kind, text = _kind(path), recipe_text(path)
    try:
        data = json.loads(text) if kind == "JSON" else tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise OptionError(f"recipe {str(path)!r} is not {kind}: {error}") from error
    return parse_recipe(data)


def recipe_text(path: Path) -> str:
    """Read a recipe as it is written.

    Raises:
        OptionError: The file cannot be read, or is no text.
    """
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        reason = (error.strerror or "cannot be read").lower()
        raise OptionError(f"cannot read recipe {str(path)!r}: {reason}") from error
    except UnicodeDecodeError as error:
        raise OptionError(f"recipe {str(path)!r} is not {_kind(path)}: {error}") from error


def _kind(path: Path) -> str:
    return "JSON" if path.suffix.lower() == ".json" else "TOML"


def recipe_toml(data: dict[str, Any]) -> str:
    """Return a recipe as the text of a ``.toml`` file, which `read_recipe` reads back.

    Args:
        data: As `recipe` gives it.
    """
    return tomli_w.dumps(data)


def recipe_schema() -> dict[str, Any]:
    """Return the JSON schema of a recipe over the installed passes."""
    entries = []
    for name, cls in available_passes().items():
        schema = cls.model_json_schema()
        schema["properties"] = {"pass": {"const": name}, **schema["properties"]}
        schema["required"] = ["pass"]
        entries.append(schema)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "onnxcomp recipe",
        "type": "object",
        "properties": {"passes": {"type": "array", "items": {"oneOf": entries}}},
        "required": ["passes"],
        "additionalProperties": False,
    }
