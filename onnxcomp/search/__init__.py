"""What the passes offer, combined under a floor: the best pipeline for a model, found by trying."""

from onnxcomp.search.aims import Aim
from onnxcomp.search.searching import Found, search

__all__ = ["Aim", "Found", "search"]
