"""Repairs that any pass calls: what a change of weights costs, and what makes up for it."""

from onnxcomp.recovery.bias import add_bias, bias_bytes, bias_of, takes_bias
from onnxcomp.recovery.choosing import best_repair
from onnxcomp.recovery.feedback import Feedback, damp
from onnxcomp.recovery.measuring import held_out_error, relative_error
from onnxcomp.recovery.problems import Problem
from onnxcomp.recovery.refits import (
    gain_and_shift,
    refit_before_relu,
    refit_codebook,
    refit_on_support,
    refit_scales,
    support_of,
)

__all__ = [
    "Feedback",
    "Problem",
    "add_bias",
    "best_repair",
    "bias_bytes",
    "bias_of",
    "damp",
    "gain_and_shift",
    "held_out_error",
    "refit_before_relu",
    "refit_codebook",
    "refit_on_support",
    "refit_scales",
    "relative_error",
    "support_of",
    "takes_bias",
]
