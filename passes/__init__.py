"""The built-in passes, one concept a module; none knows another."""

from passes.cluster import Cluster
from passes.expand import Expand
from passes.factorize import Factorize
from passes.prune import Prune
from passes.prune_channels import PruneChannels
from passes.quantize import Quantize
from passes.simplify import Simplify

ALL = (Cluster, Expand, Factorize, Prune, PruneChannels, Quantize, Simplify)

__all__ = [
    "ALL",
    "Cluster",
    "Expand",
    "Factorize",
    "Prune",
    "PruneChannels",
    "Quantize",
    "Simplify",
]
