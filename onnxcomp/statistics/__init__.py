"""Streaming observations of tensors inside a running model."""

from onnxcomp.statistics.columns import Features
from onnxcomp.statistics.files import Statistics, load_statistics, observe
from onnxcomp.statistics.held_out import HeldOut, held_out_samples
from onnxcomp.statistics.layers import Form, Layer, Use, layers
from onnxcomp.statistics.moments import Moments
from onnxcomp.statistics.observing import InputStatistics, one_thread, walk, watch_inputs
from onnxcomp.statistics.order import Order
from onnxcomp.statistics.ranges import Range, RangeWatch
from onnxcomp.statistics.relay import Relay

__all__ = [
    "Features",
    "Form",
    "HeldOut",
    "InputStatistics",
    "Layer",
    "Moments",
    "Order",
    "Range",
    "RangeWatch",
    "Relay",
    "Statistics",
    "Use",
    "held_out_samples",
    "layers",
    "load_statistics",
    "observe",
    "one_thread",
    "walk",
    "watch_inputs",
]
