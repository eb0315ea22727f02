"""Weight sharing by clustering: few values, many short codes that point to them."""

from onnxcomp_passes.cluster.cluster import Cluster

__all__ = ["Cluster"]
