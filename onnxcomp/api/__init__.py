"""`compress`: run a pipeline, check, time, keep or roll back each step."""

from onnxcomp.api.compressing import Compressed, compare, compress
from onnxcomp.api.measuring import missed_floor
from onnxcomp.api.observing import statistics
from onnxcomp.api.ranking import sensitivity
from onnxcomp.api.settings import Settings
from onnxcomp.api.steps import Progress, recipe_of

__all__ = [
    "Compressed",
    "Progress",
    "Settings",
    "compare",
    "compress",
    "missed_floor",
    "recipe_of",
    "sensitivity",
    "statistics",
]
