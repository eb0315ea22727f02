"""Quantization: weights and activations as integers."""

from onnxcomp_passes.quantize.quantize import Quantize

__all__ = ["Quantize"]
