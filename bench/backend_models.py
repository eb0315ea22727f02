"""The models of ONNX's backend test data: as they are, and with their weights as initializers."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ml_dtypes
import numpy as np
import onnx
import onnx.backend.test
from onnx import numpy_helper
from onnx.backend.test.case.model import collect_testcases as collect_models
from onnx.backend.test.loader import load_node_model_tests

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

DATA = Path(onnx.backend.test.__file__).parent / "data"
FLOATS = {np.dtype(kind) for kind in (np.float16, np.float32, np.float64, ml_dtypes.bfloat16)}
FIRST_IR_WITHOUT_LISTED_INITIALIZERS = 4
NEWEST_IR = 13
"""ONNX writes newer models than ONNX Runtime reads."""


@dataclass(frozen=True)
class Case:
    """A model and one set of inputs."""

    name: str
    proto: onnx.ModelProto
    feed: dict[str, Any]


def cases() -> Iterator[Case]:
    """Yield every model once with one set of inputs."""
    for path in sorted(DATA.rglob("*.onnx")):
        proto = onnx.load(path)
        yield Case(str(path.relative_to(DATA)), proto, stored_feed(path.parent, proto))
    for test in (*load_node_model_tests(), *collect_models()):
        if test.model is not None:
            values = test.data_sets[0][0] if test.data_sets else []
            feed = dict(zip(free_inputs(test.model), map(fed, values), strict=False))
            yield Case(test.name, readable(test.model), feed)


def fed(value: Any) -> Any:
    if isinstance(value, onnx.TensorProto):
        return numpy_helper.to_array(value)
    return np.asarray(value) if isinstance(value, np.generic) else value


def readable(proto: onnx.ModelProto) -> onnx.ModelProto:
    """Lower a model's IR version to what ONNX Runtime reads, so that it is run at all."""
    lowered = onnx.ModelProto()
    lowered.CopyFrom(proto)
    lowered.ir_version = min(proto.ir_version, NEWEST_IR)
    return lowered


def free_inputs(proto: onnx.ModelProto) -> list[str]:
    given = {each.name for each in proto.graph.initializer}
    return [each.name for each in proto.graph.input if each.name not in given]


def stored_feed(folder: Path, proto: onnx.ModelProto) -> dict[str, Any]:
    """Read the inputs that lie beside a model; models without any get ones."""
    readers: dict[str, tuple[Any, Callable[[Any], Any]]] = {
        "tensor_type": (onnx.TensorProto, numpy_helper.to_array),
        "sequence_type": (onnx.SequenceProto, numpy_helper.to_list),
        "optional_type": (onnx.OptionalProto, numpy_helper.to_optional),
    }
    feed = {}
    declared = {each.name: each for each in proto.graph.input}
    for number, name in enumerate(free_inputs(proto)):
        path = folder / "test_data_set_0" / f"input_{number}.pb"
        if path.exists():
            kind, convert = readers[declared[name].type.WhichOneof("value")]
            feed[name] = convert(kind.FromString(path.read_bytes()))
        else:
            dims = declared[name].type.tensor_type.shape.dim
            feed[name] = np.ones([dim.dim_value or 1 for dim in dims], np.float32)
    return feed


def forms(case: Case) -> Iterator[tuple[str, Case]]:
    yield "as it is", case
    promoted = promote(case)
    if promoted is not None:
        yield "weights promoted", promoted


def promote(case: Case) -> Case | None:
    """Make float inputs other than the first initializers; None where there are none."""
    data = [name for name, value in case.feed.items() if isinstance(value, np.ndarray)]
    weights = {name for name in data[1:] if case.feed[name].dtype in FLOATS}
    if not weights:
        return None
    proto = onnx.ModelProto()
    proto.CopyFrom(case.proto)
    proto.graph.initializer.extend(
        numpy_helper.from_array(case.feed[name], name) for name in sorted(weights)
    )
    if proto.ir_version >= FIRST_IR_WITHOUT_LISTED_INITIALIZERS:
        kept = [each for each in proto.graph.input if each.name not in weights]
        del proto.graph.input[:]
        proto.graph.input.extend(kept)
    feed = {name: value for name, value in case.feed.items() if name not in weights}
    return replace(case, proto=proto, feed=feed)
