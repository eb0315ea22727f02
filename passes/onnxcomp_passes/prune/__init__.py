"""Zeros in weights: which, what makes up for them, and how they are stored small."""

from onnxcomp_passes.prune.prune import Prune

__all__ = ["Prune"]
