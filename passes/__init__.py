"""The built-in passes, one concept a module; none knows another."""

from passes.cluster import Cluster
from passes.expand import Expand

ALL = (Cluster, Expand)

__all__ = ["ALL", "Cluster", "Expand"]
