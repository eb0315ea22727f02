"""Execution providers by name: what is installed here, and how a session is told to use one.

ONNX Runtime answers a request for a missing provider with a warning and the CPU. Here that is an
error, since a figure measured on another provider than the one asked for is a wrong figure.
"""

import importlib
import json
import pkgutil
from collections.abc import Iterator
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from onnxcomp.errors import ProviderError

CPU = "CPUExecutionProvider"

_SUFFIX = "ExecutionProvider"
_FULL_NAMES = MappingProxyType(
    {
        "acl": "ACLExecutionProvider",
        "armnn": "ArmNNExecutionProvider",
        "cann": "CANNExecutionProvider",
        "coreml": "CoreMLExecutionProvider",
        "cpu": CPU,
        "cuda": "CUDAExecutionProvider",
        "directml": "DmlExecutionProvider",
        "dml": "DmlExecutionProvider",
        "dnnl": "DnnlExecutionProvider",
        "migraphx": "MIGraphXExecutionProvider",
        "nnapi": "NnapiExecutionProvider",
        "openvino": "OpenVINOExecutionProvider",
        "qnn": "QNNExecutionProvider",
        "rocm": "ROCMExecutionProvider",
        "tensorrt": "TensorrtExecutionProvider",
        "tensorrt-rtx": "NvTensorRTRTXExecutionProvider",
        "vitisai": "VitisAIExecutionProvider",
        "webgpu": "WebGpuExecutionProvider",
        "xnnpack": "XnnpackExecutionProvider",
    }
)
# It forwards whole models to a remote service, and every wheel lists it.
_REMOTE = "AzureExecutionProvider"
_PLUGIN_PREFIX = "onnxruntime_ep_"
# OpenVINO computes in bfloat16 where the processor can, which would hide what a pass cost.
_PRECISION = ("INFERENCE_PRECISION_HINT", "f32")


@dataclass(frozen=True)
class Provider:
    """One execution provider that is installed here.

    Attributes:
        name: ONNX Runtime's name, such as ``CPUExecutionProvider``.
        plugin: The module that brings it (``onnxruntime_ep_openvino``), or None where it is
            compiled into ONNX Runtime.
    """

    name: str
    plugin: str | None = None

    @property
    def short_name(self) -> str:
        """The word that the command line takes, such as ``cpu``."""
        for short, full in _FULL_NAMES.items():
            if full == self.name:
                return short
        return self.name.removesuffix(_SUFFIX).lower()


def installed_providers() -> tuple[Provider, ...]:
    """List the providers that can run a model here, the CPU first.

    Plug-in packages (``pip install onnxruntime-ep-openvino``) are found by their module's name
    and loaded only by a session that asks for one.
    """
    import onnxruntime  # noqa: PLC0415  # onnxcomp --help must not pay for it

    found = {
        name: Provider(name, plugin)
        for plugin in _plugins()
        for name in _call(plugin, "get_ep_names")
    }
    built_in = [
        Provider(name)
        for name in onnxruntime.get_available_providers()
        if name != _REMOTE and name not in found and "." not in name
    ]
    providers = [*built_in, *found.values()]
    return tuple(sorted(providers, key=lambda provider: (provider.name != CPU, provider.name)))


def find_provider(name: str) -> Provider:
    """Return the installed provider of that name, short or full, in any case.

    Raises:
        ProviderError: No provider of that name is installed here.
    """
    wanted = _FULL_NAMES.get(name.lower(), name).lower()
    if wanted == CPU.lower():
        # It is always there, and to look for plug-ins takes longer than to open a small model.
        return Provider(CPU)
    installed = installed_providers()
    for provider in installed:
        if provider.name.lower() == wanted or provider.short_name == wanted:
            return provider
    known = any(full.lower() == wanted for full in _FULL_NAMES.values())
    listed = ", ".join(provider.short_name for provider in installed)
    state = "is not installed here" if known else "is unknown"
    raise ProviderError(f"provider {name!r} {state} (installed: {listed})")


def select(options: Any, provider: Provider, threads: int) -> list[Any] | None:
    """Make a session use ``provider``, and the CPU for nodes that it refuses.

    Args:
        options: The ``onnxruntime.SessionOptions`` of the session; plug-ins are added to it.
        provider: What :func:`find_provider` gave.
        threads: Threads of one run; 0 leaves it to the provider.

    Returns:
        The ``providers`` argument of ``onnxruntime.InferenceSession``; None for a plug-in.

    Raises:
        ProviderError: The plug-in cannot be loaded, or finds no device.
    """
    if provider.plugin is not None:
        device = _plugin_device(provider)
        options.add_provider_for_devices([device], _plugin_settings(provider, threads))
        return None
    if provider.name == CPU:
        return [CPU]
    return [(provider.name, _built_in_settings(provider, threads)), CPU]


def _plugin_settings(provider: Provider, threads: int) -> dict[str, str]:
    if provider.name != _FULL_NAMES["openvino"]:
        return {}
    settings: dict[str, str | int] = dict([_PRECISION])
    if threads:
        settings["INFERENCE_NUM_THREADS"] = threads
    return {"load_config": json.dumps({"CPU": settings})}


def _built_in_settings(provider: Provider, threads: int) -> dict[str, str]:
    if provider.name != _FULL_NAMES["openvino"]:
        return {}
    settings = {"device_type": "CPU", "precision": "FP32"}
    return settings | ({"num_of_threads": str(threads)} if threads else {})


def _plugins() -> Iterator[str]:
    for module in pkgutil.iter_modules():
        if module.name.startswith(_PLUGIN_PREFIX):
            yield module.name


def _call(plugin: str, function: str) -> Any:
    try:
        return getattr(importlib.import_module(plugin), function)()
    except Exception as error:
        raise ProviderError(
            f"plug-in {plugin!r} cannot be loaded ({type(error).__name__}: {error}); reinstall it"
        ) from error


def _plugin_device(provider: Provider) -> Any:
    import onnxruntime  # noqa: PLC0415

    devices = _devices(provider)
    if not devices:
        library = _call(str(provider.plugin), "get_library_path")
        try:
            onnxruntime.register_execution_provider_library(provider.plugin, library)
        except Exception as error:
            raise ProviderError(
                f"plug-in {provider.plugin!r} does not fit onnxruntime {onnxruntime.__version__}"
                f" ({' '.join(str(error).split())}); install versions that match"
            ) from error
        devices = _devices(provider)
    if not devices:
        raise ProviderError(f"provider {provider.short_name!r} finds no device on this machine")
    processors = [device for device in devices if device.device.type.name == "CPU"]
    return (processors or devices)[0]


def _devices(provider: Provider) -> list[Any]:
    import onnxruntime  # noqa: PLC0415

    return [found for found in onnxruntime.get_ep_devices() if found.ep_name == provider.name]
