"""Channels, neurons, heads and widths that are really removed."""

from onnxcomp_passes.prune_channels.finding import find_groups
from onnxcomp_passes.prune_channels.groups import Count, Frozen, Group, Integers, Part, Role, Use
from onnxcomp_passes.prune_channels.prune_channels import PruneChannels
from onnxcomp_passes.prune_channels.removal import remove

__all__ = [
    "Count",
    "Frozen",
    "Group",
    "Integers",
    "Part",
    "PruneChannels",
    "Role",
    "Use",
    "find_groups",
    "remove",
]
