"""`compress`: run a pipeline, check, time, keep or roll back each step."""

from onnxcomp.api.compressing import Compressed, compress
from onnxcomp.api.settings import Settings
from onnxcomp.api.steps import Progress

__all__ = ["Compressed", "Progress", "Settings", "compress"]
