"""A model loaded into ONNX Runtime, behind a small typed face."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from onnxcomp.errors import ModelError, OnnxcompError, ProviderError
from onnxcomp.runtime.coded import PortCodes, read_codes
from onnxcomp.runtime.dtypes import element_type, is_beyond_numpy
from onnxcomp.runtime.ports import Port, check_feed
from onnxcomp.runtime.providers import CPU, Provider, find_provider, select
from onnxcomp.runtime.values import Array, array_of, from_ort_value, to_ort_value

_FATAL = 4
_STOP_SPINNING = "session.force_spinning_stop"
_PLACEMENT = "session.record_ep_graph_assignment_info"
_DATA_FOLDER = "session.model_external_initializers_file_folder_path"
_LONGEST_REASON = 300
_FLOAT = "tensor(float)"


@dataclass(frozen=True)
class Session:
    """A loaded model; :func:`open_session` makes it.

    Attributes:
        label: What error messages call the model.
        provider: The provider's short name, such as ``cpu``.
        inputs: What a feed must hold.
        outputs: What a run gives.
        codes: What inputs and outputs stand for that are integers in the file; here they are
            floats.
    """

    label: str
    provider: str
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    handle: Any = field(repr=False)
    run_options: Any = field(repr=False)
    codes: Mapping[str, PortCodes] = field(default_factory=dict)

    def run(
        self, feed: Mapping[str, Array], outputs: Sequence[str] | None = None
    ) -> dict[str, Array]:
        """Run the model once.

        Args:
            feed: One array for each input, of the input's dtype and shape.
            outputs: Names of the wanted outputs; None for all, in the model's order.

        Returns:
            One array for each output. A sequence or a map becomes one array: stacked where the
            members' shapes are equal, else joined end to end; a map gives its values in the
            order of its sorted keys, and an absent optional an empty array.

        Raises:
            DataError: The feed does not fit the inputs.
            ModelError: The run failed.
        """
        names = [port.name for port in self.outputs] if outputs is None else list(outputs)
        try:
            coded = self.encoded(feed)
            if self._is_plain:
                values = self.handle.run(names, coded, self.run_options)
                found = {name: array_of(value) for name, value in zip(names, values, strict=True)}
            else:
                found = self._run_beyond_numpy(coded, names)
            return {
                name: self.codes[name].decode(array) if name in self.codes else array
                for name, array in found.items()
            }
        except OnnxcompError:
            raise
        except Exception as error:
            check_feed(feed, self.inputs)
            place = f"{self.label} on {self.provider}"
            raise ModelError(f"cannot run {place}: {reason(error)}") from error

    def encoded(self, feed: Mapping[str, Array]) -> dict[str, Array]:
        """Return a feed with the integers that the file takes."""
        return {
            name: self.codes[name].encode(array) if name in self.codes else array
            for name, array in feed.items()
        }

    @property
    def bare(self) -> "Session":
        """The same session without any decoding, to be timed."""
        return replace(self, codes={})

    @property
    def _is_plain(self) -> bool:
        ports = (*self.inputs, *self.outputs)
        return not any(port.dtype is not None and is_beyond_numpy(port.dtype) for port in ports)

    def _run_beyond_numpy(self, feed: Mapping[str, Array], names: list[str]) -> dict[str, Array]:
        dtypes = {port.name: port.dtype for port in self.outputs}
        values = self.handle.run_with_ort_values(
            names,
            {name: to_ort_value(array) for name, array in feed.items()},
            self.run_options,
        )
        return {
            name: from_ort_value(value, dtypes[name])
            for name, value in zip(names, values, strict=True)
        }


def open_session(
    model: bytes | Path,
    provider: str = "cpu",
    threads: int = 0,
    optimize: bool = True,
    label: str | None = None,
    *,
    folder: Path | None = None,
) -> Session:
    """Load a model into ONNX Runtime.

    The same model, provider and number of threads give the same outputs, bit for bit, on the
    CPU. OpenVINO is told to compute in float32.

    Args:
        model: A serialised model, or the path of a file. Only a path reaches external data.
        provider: ``cpu``, ``cuda``, ``openvino``, ... or ONNX Runtime's own name.
        threads: Threads of one run; 0 leaves it to ONNX Runtime.
        optimize: False turns every graph optimisation off.
        label: What error messages call the model; the file's name unless given.
        folder: Where the external data of a serialised model is.

    Raises:
        ModelError: The file is missing, or ONNX Runtime refuses the model.
        ProviderError: The provider is not installed here, or would run no node of the model.
    """
    import onnxruntime  # noqa: PLC0415  # onnxcomp --help must not pay for it

    found = find_provider(provider)
    label = label or (str(model) if isinstance(model, Path) else "the model")
    if isinstance(model, Path) and not model.is_file():
        kind = "is a directory" if model.is_dir() else "no such file or directory"
        raise ModelError(f"cannot read {str(model)!r}: {kind}")
    options = _options(found, threads, optimize)
    if folder is not None:
        options.add_session_config_entry(_DATA_FOLDER, str(folder))
    chosen = select(options, found, threads)
    try:
        handle = onnxruntime.InferenceSession(
            model, sess_options=options, providers=chosen, enable_fallback=0
        )
    except Exception as error:
        place = f"{label} on {found.short_name}"
        raise ModelError(f"cannot load {place}: {reason(error)}") from error
    _check_placement(handle, found, label)
    run_options = onnxruntime.RunOptions()
    run_options.log_severity_level = _FATAL
    codes = _codes(handle)
    return Session(
        label=label,
        provider=found.short_name,
        inputs=_ports(handle.get_inputs(), codes),
        outputs=_ports(handle.get_outputs(), codes),
        handle=handle,
        run_options=run_options,
        codes=codes,
    )


def _options(provider: Provider, threads: int, optimize: bool) -> Any:
    import onnxruntime  # noqa: PLC0415

    options = onnxruntime.SessionOptions()
    options.log_severity_level = _FATAL
    options.intra_op_num_threads = threads
    # Threads that wait for the next run would take the cores from another session's.
    options.add_session_config_entry(_STOP_SPINNING, "1")
    if provider.name != CPU:
        options.add_session_config_entry(_PLACEMENT, "1")
    if not optimize:
        level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.graph_optimization_level = level
    return options


def reason(error: Exception) -> str:
    """Return what ONNX Runtime said as one short line, without its codes."""
    text = " ".join(str(error).split())
    if text.startswith("[ONNXRuntimeError]"):
        text = text.split(" : ", maxsplit=3)[-1]
    text = re.sub(r"/\S+\.(?:cc|cpp|h):\d+ ", "", text).strip().rstrip(".") or type(error).__name__
    if len(text) > _LONGEST_REASON:
        text = text[: _LONGEST_REASON - 3] + "..."
    return text


def _codes(handle: Any) -> dict[str, PortCodes]:
    """Return what inputs and outputs stand for, where they are what the metadata say."""
    types = {each.name: each.type for each in (*handle.get_inputs(), *handle.get_outputs())}
    found = read_codes(handle.get_modelmeta().custom_metadata_map)
    return {
        name: each
        for name, each in found.items()
        if name in types and element_type(types[name]) == each.dtype
    }


def _ports(values: Sequence[Any], codes: Mapping[str, PortCodes]) -> tuple[Port, ...]:
    types = {each.name: _FLOAT if each.name in codes else each.type for each in values}
    return tuple(
        Port(value.name, types[value.name], element_type(types[value.name]), tuple(value.shape))
        for value in values
    )


def _check_placement(handle: Any, provider: Provider, label: str) -> None:
    """Refuse a session that silently fell back to another provider."""
    if provider.name not in handle.get_providers():
        raise ProviderError(
            f"provider {provider.short_name!r} could not start for {label}; see its installation"
        )
    if provider.name == CPU or not hasattr(handle, "get_provider_graph_assignment_info"):
        return
    counts: dict[str, int] = {}
    for part in handle.get_provider_graph_assignment_info():
        counts[part.ep_name] = counts.get(part.ep_name, 0) + len(part.get_nodes())
    if counts and provider.name not in counts:
        others = ", ".join(f"{name} {count}" for name, count in sorted(counts.items()))
        raise ProviderError(
            f"provider {provider.short_name!r} runs no node of {label} ({others});"
            " choose another provider"
        )
