"""How the channels of what each operator gives follow from those of what it reads."""

from onnxcomp_passes.prune_channels.rules.table import RULES

__all__ = ["RULES"]
