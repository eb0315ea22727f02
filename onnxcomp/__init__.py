"""Makes ONNX models several times smaller or faster, and proves what it cost.

from onnxcomp import Cluster, compress

compressed = compress("model.onnx", [Cluster(bits=4)], data="samples.npz")
compressed.save("small.onnx")

"""

from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from onnxcomp.api import Compressed, Limits, Settings, check, compare, compress, sensitivity
from onnxcomp.errors import OnnxcompError
from onnxcomp.graph import load_model, pack_model, save_model, unpack_model, weights
from onnxcomp.pipeline import Context, Pass, Stage, Strength, available_passes, change, skip
from onnxcomp.report import Report, Sensitivity
from onnxcomp.search import Aim, Found, Front, search_front, search_pipeline
from onnxcomp.verdicts import Verdict

if TYPE_CHECKING:
    from onnxcomp.passes import (
        Cluster,
        Expand,
        Factorize,
        Prune,
        PruneChannels,
        Quantize,
        Simplify,
    )

__version__ = version("onnxcomp")

__all__ = [
    "Aim",
    "Cluster",
    "Compressed",
    "Context",
    "Expand",
    "Factorize",
    "Found",
    "Front",
    "Limits",
    "OnnxcompError",
    "Pass",
    "Prune",
    "PruneChannels",
    "Quantize",
    "Report",
    "Sensitivity",
    "Settings",
    "Simplify",
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


def __getattr__(name: str) -> Any:
    """Return a built-in pass: they import this package, so they come when they are asked for."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from onnxcomp import passes  # noqa: PLC0415 - see above

    return getattr(passes, name)
