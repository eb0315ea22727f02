"""The built-in passes, one concept a module; none knows another."""

from passes.cluster import Cluster

ALL = (Cluster,)
