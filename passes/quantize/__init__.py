"""Quantization: weights and activations as integers."""

from passes.quantize.quantize import Quantize

__all__ = ["Quantize"]
