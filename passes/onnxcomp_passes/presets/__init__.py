"""Recipes for a search to choose from, by what the model is for."""

from pathlib import Path

FOLDER = Path(__file__).parent
