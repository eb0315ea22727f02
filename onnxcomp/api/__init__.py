"""`compress`: run a pipeline, check, time, keep or roll back each step."""

from onnxcomp.api.checking import Check, check
from onnxcomp.api.compressing import Compressed, compare, compress
from onnxcomp.api.floors import Floor, OutputFloor, doubt_of, floors_of, missed_floor
from onnxcomp.api.measuring import HELD_OUT, evaluator_of
from onnxcomp.api.observing import statistics
from onnxcomp.api.ranking import sensitivity
from onnxcomp.api.settings import Limits, Settings
from onnxcomp.api.steps import Progress, recipe_of

__all__ = [
    "HELD_OUT",
    "Check",
    "Compressed",
    "Floor",
    "Limits",
    "OutputFloor",
    "Progress",
    "Settings",
    "check",
    "compare",
    "compress",
    "doubt_of",
    "evaluator_of",
    "floors_of",
    "missed_floor",
    "recipe_of",
    "sensitivity",
    "statistics",
]
