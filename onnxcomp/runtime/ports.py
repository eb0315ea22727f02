"""Inputs and outputs of a model: what they take, and whether something fits them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from onnxcomp.errors import DataError, ModelError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from onnxcomp.runtime.dtypes import DType
    from onnxcomp.runtime.sessions import Session
    from onnxcomp.runtime.values import Array


@dataclass(frozen=True)
class Port:
    """One input or output of a model.

    Attributes:
        name: Its name in the graph.
        type: ONNX Runtime's word for the type, such as ``tensor(float)``.
        dtype: The elements' dtype (``object`` for strings); None for sequences and maps.
        shape: Sizes, names of symbolic dimensions, or None where nothing is known. ONNX Runtime
            gives ``()`` both for a scalar and where the model does not state the rank.
    """

    name: str
    type: str
    dtype: DType | None
    shape: tuple[int | str | None, ...]

    def __str__(self) -> str:
        dims = ", ".join("?" if dim is None else str(dim) for dim in self.shape)
        return f"{self.name} {self.type}[{dims}]"


def check_feed(feed: Mapping[str, Array], inputs: Sequence[Port], where: str = "feed") -> None:
    """Check one feed against the inputs of a model.

    Raises:
        DataError: A name, a shape or a dtype does not fit; the text starts with ``where``.
    """
    check_names(tuple(feed), inputs, where)
    for port in inputs:
        array = feed[port.name]
        if port.dtype is None:
            continue
        if not isinstance(array, np.ndarray):
            kind = type(array).__name__
            raise DataError(f"{where}: input {port.name!r} is {kind}, expected a numpy array")
        if not shape_fits(array.shape, port.shape):
            raise DataError(f"{where}: {misfit(port, array.shape)}")
        if array.dtype != port.dtype and not (port.dtype.kind == "O" and array.dtype.kind in "UT"):
            raise DataError(
                f"{where}: input {port.name!r} has dtype {array.dtype}, expected {port.dtype}"
            )


def check_names(names: Sequence[str], inputs: Sequence[Port], where: str) -> None:
    """Check that ``names`` are the inputs' names, each of them.

    Raises:
        DataError: One is unknown or missing.
    """
    expected = [port.name for port in inputs]
    listed = ", ".join(expected) or "none"
    for name in names:
        if name not in expected:
            raise DataError(f"{where}: {name!r} is not an input of the model (inputs: {listed})")
    for name in expected:
        if name not in names:
            raise DataError(f"{where}: nothing for input {name!r} (inputs: {listed})")


def shape_fits(shape: tuple[int, ...], dims: tuple[int | str | None, ...]) -> bool:
    """Tell whether an array of ``shape`` fits; ``()`` fits all, since the rank may be unknown."""
    if not dims:
        return True
    if len(shape) != len(dims):
        return False
    return all(
        not isinstance(dim, int) or dim == size for size, dim in zip(shape, dims, strict=True)
    )


def check_outputs(first: Session, second: Session) -> None:
    """Check that two models do not contradict each other about the outputs that both have.

    Raises:
        ModelError: The ranks, a fixed size, or text and numbers stand against each other.
    """
    ports = {port.name: port for port in first.outputs}
    for port in second.outputs:
        other = ports.get(port.name, port)
        if _contradict(port, other):
            raise ModelError(
                f"{second.label} declares output {port}, against {other} in {first.label}"
            )


def _contradict(port: Port, other: Port) -> bool:
    """Tell whether no array can be both; ``()`` is no rank, since that may be unknown."""
    if port.dtype is None or other.dtype is None:
        return False
    if (port.dtype.kind == "O") != (other.dtype.kind == "O"):
        return True
    if not port.shape or not other.shape:
        return False
    if len(port.shape) != len(other.shape):
        return True
    return any(
        isinstance(size, int) and isinstance(wanted, int) and size != wanted
        for size, wanted in zip(port.shape, other.shape, strict=True)
    )


def misfit(port: Port, shape: tuple[int, ...]) -> str:
    """Return the part of an error's text that says which shape was expected."""
    dims = ", ".join("?" if dim is None else str(dim) for dim in port.shape)
    return f"input {port.name!r} has shape {list(shape)}, expected [{dims}]"
