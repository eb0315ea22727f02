"""What every pass that changes weights layer by layer has in common."""

from onnxcomp.layerwise.budget import Allotment, keep_within
from onnxcomp.layerwise.coding import Coder, shift_bytes
from onnxcomp.layerwise.method import Made, Method
from onnxcomp.layerwise.portions import observed
from onnxcomp.layerwise.probing import SAMPLES, Sensed, costs_of, output_costs, output_errors
from onnxcomp.layerwise.sequence import repair_layers

__all__ = [
    "SAMPLES",
    "Allotment",
    "Coder",
    "Made",
    "Method",
    "Sensed",
    "costs_of",
    "keep_within",
    "observed",
    "output_costs",
    "output_errors",
    "repair_layers",
    "shift_bytes",
]
