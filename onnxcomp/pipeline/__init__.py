"""Passes: what they are, which there are, and how a pipeline of them is written down."""

from onnxcomp.pipeline.passes import Context, Pass, Stage, Strength, change, skip
from onnxcomp.pipeline.recipes import (
    parse_recipe,
    read_recipe,
    recipe,
    recipe_schema,
    recipe_text,
    recipe_toml,
)
from onnxcomp.pipeline.registry import available_passes, available_presets

__all__ = [
    "Context",
    "Pass",
    "Stage",
    "Strength",
    "available_passes",
    "available_presets",
    "change",
    "parse_recipe",
    "read_recipe",
    "recipe",
    "recipe_schema",
    "recipe_text",
    "recipe_toml",
    "skip",
]
