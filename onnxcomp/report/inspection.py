"""What a model holds, before anything is done to it."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from rich.console import Group
from rich.table import Table
from rich.text import Text

from onnxcomp.graph import count_bytes, store_of, weights
from onnxcomp.report.frozen import Record
from onnxcomp.report.tables import size

if TYPE_CHECKING:
    from rich.console import RenderableType

    from onnxcomp.graph import Model


class WeightRecord(Record):
    """One weight-like tensor.

    Attributes:
        name: Its name.
        op_types: Operators that read it.
        shape: Its shape.
        dtype: Its element type.
        bytes: Bytes that it takes in the file, the operators that decode it included.
        store: How it is stored; "plain" where it is a tensor.
        unsuitable: Why no pass may compress it; None if it may.
    """

    name: str
    op_types: tuple[str, ...]
    shape: tuple[int, ...]
    dtype: str
    bytes: int
    store: str
    unsuitable: str | None


class Inspection(Record):
    """What a model holds.

    Attributes:
        bytes: Bytes of the model and its data files.
        opset: Of the standard operators.
        ir_version: Of the file format.
        producer: The tool that wrote it.
        inputs: Name, element type and shape of each input.
        outputs: Likewise.
        operators: How often each operator occurs, in all scopes.
        weights: Every weight-like tensor.
        metadata: The model's metadata.
    """

    bytes: int
    opset: int
    ir_version: int
    producer: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    operators: dict[str, int]
    weights: tuple[WeightRecord, ...]
    metadata: dict[str, str]


def inspect_model(model: Model) -> Inspection:
    """Look a model over; no weight is loaded."""
    found = []
    for each in weights(model):
        store = store_of(each.tensor)
        found.append(
            WeightRecord(
                name=each.name,
                op_types=each.op_types,
                shape=each.shape,
                dtype=str(each.dtype),
                bytes=each.tensor.nbytes,
                store="plain" if store is None else store.kind,
                unsuitable=each.unsuitable,
            )
        )
    header = model.header
    operators = Counter(node.op for scope in model.all_scopes() for node in scope.nodes)
    return Inspection(
        bytes=count_bytes(model),
        opset=model.opset,
        ir_version=header.ir_version,
        producer=f"{header.producer_name} {header.producer_version}".strip(),
        inputs=tuple(f"{each.name}: {each.dtype} {each.shape}" for each in model.inputs),
        outputs=tuple(f"{each.name}: {each.dtype} {each.shape}" for each in model.outputs),
        operators=dict(operators.most_common()),
        weights=tuple(found),
        metadata=model.metadata,
    )


def inspection_table(inspection: Inspection) -> RenderableType:
    """Return an inspection as tables."""
    about = Table("model", "")
    operators = ", ".join(f"{count} {name}" for name, count in inspection.operators.items())
    for name, value in (
        ("bytes", size(inspection.bytes)),
        ("opset", str(inspection.opset)),
        ("IR version", str(inspection.ir_version)),
        ("producer", inspection.producer),
        ("inputs", "\n".join(inspection.inputs)),
        ("outputs", "\n".join(inspection.outputs)),
        ("operators", operators),
        *inspection.metadata.items(),
    ):
        about.add_row(Text(name), Text(value))
    held = Table("weight", "operators", "shape", "type", "bytes", "store", "left alone because it")
    for each in sorted(inspection.weights, key=lambda weight: -weight.bytes):
        held.add_row(
            Text(each.name),
            Text(", ".join(each.op_types)),
            "x".join(map(str, each.shape)),
            each.dtype,
            size(each.bytes),
            each.store,
            Text(each.unsuitable or ""),
        )
    return Group(about, held)
