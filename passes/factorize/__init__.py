"""Low rank: a layer becomes two or more smaller ones."""

from passes.factorize.factorize import Factorize

__all__ = ["Factorize"]
