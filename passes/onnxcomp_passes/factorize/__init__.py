"""Low rank: a layer becomes two or more smaller ones."""

from onnxcomp_passes.factorize.factorize import Factorize

__all__ = ["Factorize"]
