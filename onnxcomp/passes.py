"""The built-in passes under the name by which everybody else imports them.

They are a package of their own, which knows this one; nothing else here knows them.
"""

from onnxcomp_passes import (
    ALL,
    Cluster,
    Expand,
    Factorize,
    Prune,
    PruneChannels,
    Quantize,
    Simplify,
)

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
