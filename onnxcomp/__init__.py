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
from onnxcomp.search import Aim, Found, Front, search_front, search_pipeline
from onnxcomp.verdicts import Verdict

__all__ = [
    "Aim",
    "Compressed",
    "Context",
    "Found",
    "Front",
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
    "search_front",
    "search_pipeline",
    "sensitivity",
    "skip",
    "unpack_model",
    "weights",
]
