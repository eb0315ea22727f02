"""The built-in passes, one concept a module; none knows another."""

from onnxcomp_passes.cluster import Cluster
from onnxcomp_passes.expand import Expand
from onnxcomp_passes.factorize import Factorize
from onnxcomp_passes.prune import Prune
from onnxcomp_passes.prune_channels import PruneChannels
from onnxcomp_passes.quantize import Quantize
from onnxcomp_passes.simplify import Simplify

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
