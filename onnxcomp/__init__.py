"""Makes ONNX models several times smaller or faster, and proves what it cost.

from onnxcomp import compress
from passes import Cluster

compressed = compress("model.onnx", [Cluster(bits=4)], data="samples.npz")
compressed.save("small.onnx")

"""

from onnxcomp.api import Compressed, Limits, Settings, check, compare, compress, sensitivity
from onnxcomp.errors import OnnxcompError
from onnxcomp.graph import load_model, pack_model, save_model, unpack_model, weights
from onnxcomp.pipeline import Context, Pass, Stage, Strength, available_passes, change, skip
from onnxcomp.report import Report, Sensitivity
from onnxcomp.verdicts import Verdict

__all__ = [
    "Compressed",
    "Context",
    "Limits",
    "OnnxcompError",
    "Pass",
    "Report",
    "Sensitivity",
    "Settings",
    "Stage",
    "Strength",
    "Verdict",
    "available_passes",
    "change",
    "check",
    "compare",
    "compress",
    "load_model",
    "pack_model",
    "save_model",
    "sensitivity",
    "skip",
    "unpack_model",
    "weights",
]
