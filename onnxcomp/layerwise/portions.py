"""Layers in portions whose second moments fit the memory together."""

from __future__ import annotations

from typing import TYPE_CHECKING

from onnxcomp.statistics.held_out import MOST_ELEMENTS, MOST_KEPT

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from onnxcomp.graph import Model
    from onnxcomp.pipeline import Context
    from onnxcomp.statistics import InputStatistics, Layer

MOMENT_BYTES, COLUMN_BYTES = 8, 4
"""What an element of a second moment and of a column that is held out takes."""

MOST_BYTES = 1 << 27
"""What the moments and columns of the layers of a portion may take; a single layer may take more.

Borders depend on the model alone: which tensors a session gives out changes how it rounds."""


def portions(layers: Sequence[Layer], *, sides: int = 1) -> Iterator[list[Layer]]:
    """Cut layers into runs of them whose moments and columns fit the memory together.

    Layers that multiply the same tensors share theirs.

    Args:
        layers: Layers, in an order in which those that share theirs are near each other.
        sides: 2 where the original's columns are observed beside the model's.
    """
    part: list[Layer] = []
    known: set[tuple[int, ...]] = set()
    total = 0
    for layer in layers:
        read = tuple(id(tensor) for use in layer.uses for tensor in use.tensors)
        size = 0 if read in known else sides * _observed_bytes(layer)
        if part and total + size > MOST_BYTES:
            yield part
            part, known, total = [], set(), 0
            size = sides * _observed_bytes(layer)
        part.append(layer)
        known.add(read)
        total += size
    if part:
        yield part


def _observed_bytes(layer: Layer) -> int:
    if not layer.uses:
        return 0
    groups, _, width = layer.form.matrices
    columns = min(MOST_KEPT * groups * width, MOST_ELEMENTS)
    return MOMENT_BYTES * groups * width * width + COLUMN_BYTES * columns


def observed(
    model: Model, layers: Sequence[Layer], context: Context
) -> Iterator[tuple[Layer, InputStatistics]]:
    """Yield layers with what they multiply their weights with, a portion held at a time.

    Args:
        model: The model.
        layers: Layers of it.
        context: Samples, or statistics of the model; without either nothing is known.
    """
    parts = list(portions(layers))
    for number, part in enumerate(parts):
        told = context.part(number / len(parts), (number + 1) / len(parts))
        yield from zip(part, told.inputs_of(model, part), strict=True)
