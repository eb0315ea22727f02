"""The model made simple: constants folded, and what computes nothing removed."""

from passes.simplify.simplify import Simplify

__all__ = ["Simplify"]
