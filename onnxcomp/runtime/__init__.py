"""ONNX Runtime: sessions, execution providers, and the samples that are fed to a model."""

from onnxcomp.runtime.feeds import read_samples
from onnxcomp.runtime.ports import Port
from onnxcomp.runtime.providers import Provider, find_provider, installed_providers
from onnxcomp.runtime.samples import Feed, Samples
from onnxcomp.runtime.sessions import Session, open_session
from onnxcomp.runtime.synthetic import find_runnable, samples_for, synthetic_samples
from onnxcomp.runtime.values import Array

__all__ = [
    "Array",
    "Feed",
    "Port",
    "Provider",
    "Samples",
    "Session",
    "find_provider",
    "find_runnable",
    "installed_providers",
    "open_session",
    "read_samples",
    "samples_for",
    "synthetic_samples",
]
