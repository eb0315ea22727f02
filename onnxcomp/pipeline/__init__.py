"""Passes: what they are, which there are, and how a pipeline of them is written down."""

from onnxcomp.pipeline.passes import Context, Offer, Pass, Stage, change, skip
from onnxcomp.pipeline.recipes import parse_recipe, read_recipe, recipe, recipe_schema
from onnxcomp.pipeline.registry import available_passes

__all__ = [
    "Context",
    "Offer",
    "Pass",
    "Stage",
    "available_passes",
    "change",
    "parse_recipe",
    "read_recipe",
    "recipe",
    "recipe_schema",
    "skip",
]
