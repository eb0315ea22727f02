"""What every pass that changes weights layer by layer has in common."""

from onnxcomp.layerwise.coding import Coder
from onnxcomp.layerwise.curves import Curves
from onnxcomp.layerwise.method import Curve, Method
from onnxcomp.layerwise.options import WeightPass
from onnxcomp.layerwise.portions import observed
from onnxcomp.layerwise.probing import SAMPLES, output_costs, output_errors
from onnxcomp.layerwise.sequence import repair_layers

__all__ = [
    "SAMPLES",
    "Coder",
    "Curve",
    "Curves",
    "Method",
    "WeightPass",
    "observed",
    "output_costs",
    "output_errors",
    "repair_layers",
]
