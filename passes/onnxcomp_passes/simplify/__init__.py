"""The model made simple: constants folded, and what computes nothing removed."""

from onnxcomp_passes.simplify.simplify import Simplify

__all__ = ["Simplify"]
