"""What every pass that changes weights layer by layer has in common."""

from onnxcomp.layerwise.budget import Allotment, keep_within
from onnxcomp.layerwise.coding import Coder, shift_bytes
from onnxcomp.layerwise.curves import Curves, measured
from onnxcomp.layerwise.method import Curve, Method
from onnxcomp.layerwise.options import WeightPass
from onnxcomp.layerwise.portions import observed
from onnxcomp.layerwise.probing import SAMPLES, output_costs, output_errors
from onnxcomp.layerwise.sequence import repair_layers

__all__ = [
    "SAMPLES",
    "Allotment",
    "Coder",
    "Curve",
    "Curves",
    "Method",
    "WeightPass",
    "keep_within",
    "measured",
    "observed",
    "output_costs",
    "output_errors",
    "repair_layers",
    "shift_bytes",
]
