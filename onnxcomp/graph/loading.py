"""Models from files, bytes and other libraries' objects, and to bytes."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import onnx
import onnx_graphsurgeon as gs
from google.protobuf.message import DecodeError, EncodeError

from onnxcomp.errors import ModelError
from onnxcomp.graph.external import DataFiles
from onnxcomp.graph.messages import check_text
from onnxcomp.graph.model import Model
from onnxcomp.graph.reading import read_model
from onnxcomp.graph.writing import count_bytes, write_model

if TYPE_CHECKING:
    from onnxcomp.graph.writing import Load

LARGEST_MESSAGE = (1 << 31) - (1 << 20)
"""Protobuf writes no message of 2 GiB."""

TOO_LARGE = "the model is larger than 2 GiB; save it to a file, which keeps the weights beside it"


def load_model(source: Any) -> Model:
    """Read a model, lazily.

    Args:
        source: A path, the bytes of a file, `onnx.ModelProto`, `onnx_graphsurgeon.Graph`,
            `onnx_ir.Model`, a PyTorch `ONNXProgram`, or a `Model`.

    Raises:
        ModelError: ``source`` is none of these, or not a model.
    """
    if isinstance(source, Model):
        return source
    if isinstance(source, str | Path):
        path = Path(source)
        return _checked(_parse_file(path), DataFiles(path.parent), str(path))
    if isinstance(source, bytes):
        return _checked(_parse(source, "the given bytes"), DataFiles(None), "the given bytes")
    if isinstance(source, onnx.ModelProto):
        private = onnx.ModelProto()
        private.CopyFrom(source)
        return _checked(private, DataFiles(None), "the given ModelProto")
    if isinstance(source, gs.Graph):
        proto = gs.export_onnx(source)  # noqa: TID251 - this is the room
        return _checked(proto, DataFiles(None), "the given GraphSurgeon graph")
    return _from_other(source)


def _from_other(source: Any) -> Model:
    """Read an `onnx_ir.Model` or whatever holds one or makes a message, by duck typing."""
    if hasattr(source, "model_proto"):  # torch.onnx.ONNXProgram
        return load_model(source.model_proto)
    if type(source).__module__.split(".")[0] == "onnx_ir":
        return _from_onnx_ir(source)
    raise ModelError(
        f"cannot read a model from {type(source).__name__}; give a path, bytes, onnx.ModelProto, "
        "onnx_graphsurgeon.Graph, onnx_ir.Model or torch.onnx.ONNXProgram"
    )


def _from_onnx_ir(source: Any) -> Model:
    import onnx_ir  # noqa: PLC0415 - no dependency: the caller has it

    weights = (
        each.const_value for graph in source.graphs() for each in graph.initializers.values()
    )
    folders = {each.base_dir for each in weights if isinstance(each, onnx_ir.ExternalTensor)}
    if len(folders) > 1:
        raise ModelError("the given onnx_ir.Model has data in several folders; save it first")
    folder = Path(folders.pop()) if folders else None
    return _checked(onnx_ir.to_proto(source), DataFiles(folder), "the given onnx_ir.Model")


def _parse_file(path: Path) -> onnx.ModelProto:
    try:
        data = path.read_bytes()
    except OSError as error:
        reason = (error.strerror or "cannot be read").lower()
        raise ModelError(f"cannot read {str(path)!r}: {reason}") from error
    return _parse(data, str(path))


def _parse(data: bytes, name: str) -> onnx.ModelProto:
    if not data:
        raise ModelError(f"{name} is empty; export the model again")
    proto = onnx.ModelProto()
    try:
        proto.ParseFromString(data)
    except DecodeError as error:
        raise ModelError(f"{name} is truncated or not an ONNX model") from error
    return proto


def check_file(path: Path, name: str) -> None:
    """Refuse a file that holds no model; data files that it names need not be there.

    Args:
        path: The file.
        name: What it is in messages.

    Raises:
        ModelError: It holds something else.
    """
    _check_graph(_parse(path.read_bytes(), name), name)


def _check_graph(proto: onnx.ModelProto, name: str) -> None:
    if not proto.HasField("graph") or not (proto.opset_import or proto.ir_version):
        raise ModelError(f"{name} is not an ONNX model: it has no graph")


def _checked(proto: onnx.ModelProto, files: DataFiles, name: str) -> Model:
    _check_graph(proto, name)
    try:
        check_text(proto)
        return read_model(proto, files)
    except (LookupError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise ModelError(f"{name} is damaged: {reason}") from error


def model_proto(model: Model) -> onnx.ModelProto:
    """Return the model as a message, all data in it.

    Raises:
        ModelError: The model is larger than one protobuf message may be; save it to a file.
    """
    if count_bytes(model) > LARGEST_MESSAGE:
        raise ModelError(TOO_LARGE)
    return write_model(model)


def model_bytes(model: Model) -> bytes:
    """Return the model as the bytes of one file; the same model gives the same bytes.

    Raises:
        ModelError: The model is larger than one protobuf message may be; save it to a file.
    """
    return serialise(model_proto(model))


def fingerprint(model: Model) -> str:
    """Return a SHA-256 of all that a model computes with: nodes, weights, inputs and outputs."""
    digest = hashlib.sha256()

    def take(header: onnx.TensorProto, _size: int, load: Load) -> None:
        digest.update(load().data)
        header.raw_data = b""

    proto = write_model(model, offload=take)
    digest.update(proto.graph.SerializeToString(deterministic=True))
    for function in proto.functions:
        digest.update(function.SerializeToString(deterministic=True))
    return digest.hexdigest()


def referring_bytes(model: Model) -> tuple[bytes, Path | None]:
    """Return a model whose external data stays where it is, and the folder that it is in.

    Raises:
        ModelError: What is not external is larger than one protobuf message may be.
    """
    return serialise(write_model(model, refer=True)), model.folder if model.is_external else None


def serialise(proto: onnx.ModelProto) -> bytes:
    """Return a message as bytes, the same for the same message.

    Raises:
        ModelError: It is larger than one protobuf message may be.
    """
    try:
        data: bytes = proto.SerializeToString(deterministic=True)
    except (EncodeError, ValueError) as error:
        raise ModelError(TOO_LARGE) from error
    return data
