"""The best pipeline for a model under a floor, found by trying what the passes offer."""

from onnxcomp.search.aims import Aim
from onnxcomp.search.finding import search_front, search_pipeline
from onnxcomp.search.preparing import target_file
from onnxcomp.search.results import Found, Front
from onnxcomp.search.trying import Listener

__all__ = ["Aim", "Found", "Front", "Listener", "search_front", "search_pipeline", "target_file"]
