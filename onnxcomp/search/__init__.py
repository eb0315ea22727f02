"""The best pipeline for a model under a floor, found by trying what the passes offer."""

from onnxcomp.search.aims import Aim
from onnxcomp.search.preparing import target_file
from onnxcomp.search.searching import Found, search

__all__ = ["Aim", "Found", "search", "target_file"]
