"""New codes for a codebook: chosen so that the outputs of the layer suffer least."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from onnxcomp.recovery import refit_codebook
from onnxcomp_passes.cluster.scales import computed_dtype
from onnxcomp_passes.cluster.vectors import assign_vectors

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from onnxcomp.recovery import Feedback
    from onnxcomp.statistics import Form
    from onnxcomp_passes.cluster.coding import Coding

    Singles = NDArray[np.float32]

MOST_REFITTED = 16
"""Entries of a codebook that is refitted; more have few weights each, and take long."""

MOST_COMPARED = 1 << 22
"""Distances that are held at once."""


class Grid:
    """What a coding can decode to, seen from the matrices of a layer.

    Args:
        coding: The coding; its codes do not matter.
        form: How the weight becomes matrices.
        dtype: The weight's element type.
    """

    def __init__(self, coding: Coding, form: Form, dtype: np.dtype[Any]) -> None:
        self._coding = coding
        self._form = form
        computed = dtype if coding.scale is None else computed_dtype(np.empty(0, dtype))
        book = coding.codebook
        entries = book.values(computed).astype(np.float32)
        self._books = entries.reshape(book.groups, -1, book.width)
        moved = (form.tensor[coding.axis], *_without(form.tensor, coding.axis))
        self._moved = moved
        scale = np.ones((1,) * len(moved)) if coding.scale is None else coding.scale
        self._scale = self._of_rows(np.broadcast_to(scale.astype(np.float32), moved))
        which = np.arange(moved[0]) * book.groups // moved[0]
        which = np.broadcast_to(which.reshape(-1, *(1,) * (len(moved) - 1)), moved)
        self._book_of_row = self._of_rows(which)

    @property
    def width(self) -> int | None:
        """Inputs that one code stands for; None if codes stand for weights of other places."""
        width = self._coding.codebook.width
        _, outputs, inputs = self._form.matrices
        if width == 1 or (self._runs_along_outputs and outputs % width == 0):
            return 1
        along_inputs = self._form.order == tuple(range(len(self._form.order)))
        return width if along_inputs and inputs % width == 0 else None

    @property
    def _runs_along_outputs(self) -> bool:
        """Whether neighbouring weights belong to neighbouring outputs."""
        return self._coding.axis == 0 and self._form.order == (1, 0)

    def recode(
        self,
        target: NDArray[Any],
        feedbacks: Sequence[Feedback],
        support: NDArray[np.bool_] | None = None,
    ) -> Coding:
        """Return the coding with new codes.

        Args:
            target: What should be decoded, shape (groups, outputs, inputs).
            feedbacks: For each group.
            support: What may differ from zero, shape as the target; None for all. Codes of
                vectors do not keep to it.
        """
        stays = [None] * len(target) if support is None or self.width != 1 else support
        trios = zip(target, feedbacks, stays, strict=True)
        rounded = np.stack(
            [
                feedback.round(matrix, self._rounding(group), stay, self.width)
                for group, (matrix, feedback, stay) in enumerate(trios)
            ]
        )
        return replace(self._coding, codes=self._codes_of(rounded))

    def refit(self, coding: Coding, target: NDArray[Any], second: NDArray[Any]) -> Coding | None:
        """Return a coding of this grid with a codebook that fits its codes best.

        Entries that are zero stay so. None where there is no single codebook of a few floats for a
        single matrix.

        Args:
            coding: The coding.
            target: What should be decoded, shape (1, outputs, inputs).
            second: Second moment of what it multiplies, shape (1, inputs, inputs).
        """
        book = coding.codebook
        is_single = len(target) == book.groups == book.width == 1
        if not is_single or book.clusters > MOST_REFITTED or book.unit is not None:
            return None
        moved = coding.codes.reshape(self._moved)
        codes = self._form.to_matrices(np.moveaxis(moved, 0, coding.axis))
        old = book.entries[:, 0].astype(np.float64)
        scale = self._scale[0].astype(np.float64)
        found = refit_codebook(target[0], codes[0], scale, second[0], old)
        entries = np.where(old == 0, 0.0, found)[:, None].astype(book.entries.dtype)
        return replace(coding, codebook=replace(book, entries=entries))

    def _rounding(self, group: int) -> Callable[[Singles, Singles], Singles]:
        scale, books = self._scale[group], self._books[self._book_of_row[group]]
        divisor = np.where(scale > 0, scale, np.float32(1))
        if len(self._books) > 1:
            return lambda columns, _: _nearest_of(books, columns[0] / divisor)[None] * scale
        (book,) = self._books
        if book.shape[1] == 1:
            entries, limits = book[:, 0], (book[1:, 0] + book[:-1, 0]) / 2
            return lambda columns, _: entries[np.searchsorted(limits, columns / divisor)] * scale
        if self._runs_along_outputs:
            return lambda columns, _: (
                book[assign_vectors((columns / divisor).reshape(-1, book.shape[1]), book)].reshape(
                    columns.shape
                )
                * scale
            )
        return lambda columns, metric: (
            book[assign_vectors((metric @ (columns / divisor)).T, book @ metric.T)].T * scale
        )

    def _codes_of(self, rounded: NDArray[Any]) -> NDArray[np.uint8]:
        """Return the codes of values that are on the grid."""
        scale = self._scale[:, :, None]
        values = rounded / np.where(scale > 0, scale, 1)
        book = self._coding.codebook
        moved = np.moveaxis(self._form.to_tensor(values), self._coding.axis, 0)
        if book.width > 1:
            return assign_vectors(moved.reshape(-1, book.width), self._books[0])
        groups = moved.reshape(book.groups, -1)
        codes = [
            np.searchsorted((each[1:, 0] + each[:-1, 0]) / 2, part).astype(np.uint8)
            for each, part in zip(self._books, groups, strict=True)
        ]
        return np.concatenate(codes)

    def _of_rows(self, moved: NDArray[Any]) -> NDArray[Any]:
        """Return what belongs to each output, shape (groups, outputs)."""
        tensor = np.moveaxis(moved, 0, self._coding.axis)
        return self._form.to_matrices(tensor)[:, :, 0]


def _nearest_of(books: Singles, values: Singles) -> Singles:
    """Return for each value the nearest entry of its own book, shape (values,)."""
    entries = books[:, :, 0]
    nearest = np.empty_like(values)
    step = max(1, MOST_COMPARED // entries.shape[1])
    for start in range(0, len(values), step):
        part = slice(start, start + step)
        places = np.argmin(np.abs(entries[part] - values[part, None]), axis=1)
        nearest[part] = np.take_along_axis(entries[part], places[:, None], axis=1)[:, 0]
    return nearest


def _without(shape: tuple[int, ...], axis: int) -> tuple[int, ...]:
    return shape[:axis] + shape[axis + 1 :]
