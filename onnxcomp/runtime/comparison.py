"""How far one model's outputs are from another's, summed up feed by feed."""

from collections.abc import Iterable
from math import inf, isfinite, log10, sqrt
from typing import Self

import numpy as np
from pydantic import BaseModel, ConfigDict, field_serializer

from onnxcomp.runtime.agreement import Agreement
from onnxcomp.runtime.dtypes import is_float
from onnxcomp.runtime.ports import Port
from onnxcomp.runtime.values import Array

_PIECE = 1 << 20
# A sigmoid that is zero everywhere is zero to within 1e-7: noise, however large a share of it.
_SMALLEST_SCALE = 1e-3
_TINY = 1e-300


class OutputComparison(BaseModel):
    """One output of two models, over all samples.

    Attributes:
        name: The output's name.
        dtype: The original's element type, such as ``float32``.
        cosine: Cosine of the angle between the two, over all elements; 0 where the result is not
            finite. None for strings, as for all that follow but the agreement.
        snr_db: 10 log10(sum of original^2 / sum of difference^2), in dB: infinite where the two
            are equal, minus infinite where the result is not finite or has no shape in common;
            either is null in JSON, where ``max_abs`` tells them apart.
        squared_error: The same ratio the other way round, sum of difference^2 / sum of
            original^2, without unit; infinite (null in JSON) where ``snr_db`` is minus infinite.
        max_abs: The largest difference of two elements, in the output's unit; infinite (null in
            JSON) where the result is not finite or has no shape in common.
        agreement: For floats, the share of rows along the last axis whose largest element is at
            the same place (None where that axis is no longer than 1); for all others, the share
            of equal elements. In [0, 1]; rows do not agree where their shapes differ, where one
            holds a NaN, and where the largest element is not finite.
        agreement_low: Lower end of its 95 % interval, by a bootstrap over what is along the first
            axis of the outputs (samples, as a rule); None where the agreement is.
        agreement_high: Upper end of it.
        finite: False where the result has a NaN or an infinity and the original a number.
        compared: Elements that could be compared: those that are finite in the original. Where it
            is 0, all measures are None.
        misshapen: Feeds in which the shapes differ; they count for the agreement alone.
        note: Why the output could not be compared in full, or None.
        breach: How the result's shape breaks the rank or a fixed size of the original's output,
            or text stands against numbers; None where only free dimensions differ, as they may
            where a shape depends on the data.
    """

    model_config = ConfigDict(frozen=True, defer_build=True)

    name: str
    dtype: str
    cosine: float | None
    snr_db: float | None
    squared_error: float | None
    max_abs: float | None
    agreement: float | None
    agreement_low: float | None = None
    agreement_high: float | None = None
    finite: bool = True
    compared: int
    misshapen: int = 0
    note: str | None = None
    breach: str | None = None

    @property
    def is_float(self) -> bool:
        """Whether it holds floats, of whatever width."""
        return self.snr_db is not None and "float" in self.dtype

    @property
    def is_identical(self) -> bool:
        """Whether every element of every feed is the original's."""
        return self.max_abs == 0 and not self.misshapen

    @field_serializer("snr_db", "squared_error", "max_abs", when_used="json")
    def _finite_or_null(self, value: float | None) -> float | None:
        return value if value is not None and isfinite(value) else None


def worst_snr_db(outputs: Iterable[OutputComparison]) -> float | None:
    """Return the lowest SNR of the float outputs, in dB; None where no output holds floats."""
    known = [each.snr_db for each in outputs if each.is_float and each.snr_db is not None]
    return min(known, default=None)


def least_agreement(outputs: Iterable[OutputComparison]) -> OutputComparison | None:
    """Return the output of which the smallest share of rows agree; None where none has rows."""
    known = [each for each in outputs if each.agreement is not None]
    return min(known, key=lambda each: each.agreement or 0.0, default=None)


def largest_disagreement(outputs: Iterable[OutputComparison]) -> float | None:
    """Return the largest share of an output's rows that disagree; None where none has rows."""
    worst = least_agreement(outputs)
    return None if worst is None or worst.agreement is None else 1 - worst.agreement


class OutputSums:
    """Running sums over the feeds for one output; what is kept of a sample are two counts.

    Args:
        name: The output's name.
        dims: Its declared dimensions, ``()`` where they are unknown; None for a sequence, a map
            or an optional, whose array has a shape that depends on its members.
    """

    def __init__(self, name: str, dims: tuple[int | str | None, ...] | None = ()) -> None:
        self.name = name
        self.dims = dims
        self.dtype = "none"
        self.is_float = False
        self.original_squares = 0.0
        self.other_squares = 0.0
        self.products = 0.0
        self.difference_squares = 0.0
        self.max_abs = 0.0
        self.feeds = 0
        self.agreement = Agreement()
        self.lost = 0
        self.left_out = 0
        self.compared = 0
        self.elements = 0
        self.misshapen = 0
        self.misfit = ""
        self.breaches = 0
        self.breach = ""

    @classmethod
    def of(cls, port: Port) -> Self:
        """Return sums for an output of the original."""
        return cls(port.name, port.shape if port.type.startswith("tensor(") else None)

    def add(self, original: Array, other: Array) -> None:
        """Take in one feed's pair of outputs."""
        self.feeds += 1
        self.dtype = "string" if _is_text(original) else original.dtype.name
        self.is_float = is_float(original.dtype)
        if original.shape != other.shape or _is_text(original) != _is_text(other):
            self.misshapen += 1
            self.compared += max(1, original.size)
            self.misfit = self.misfit or f"{_words(original)} against {_words(other)}"
            self._count_breach(original, other)
            self.agreement.miss(_rows(original, self.is_float))
        elif _is_text(original):
            self.compared += original.size
            self.agreement.add(original == other, self._samples_in(original))
        else:
            self._add_numbers(original, other)

    def comparison(self) -> OutputComparison:
        """Return what the sums amount to."""
        broken = self.lost > 0 or self.misshapen == self.feeds
        has_none = self.dtype == "string" or not self.compared
        shares = self.agreement.share() if self.compared else None
        agreement, low, high = shares or (None, None, None)
        return OutputComparison(
            name=self.name,
            dtype=self.dtype,
            cosine=None if has_none else 0.0 if broken else self._cosine(),
            snr_db=None if has_none else -inf if broken else self._snr_db(),
            squared_error=None if has_none else inf if broken else self._squared_error(),
            max_abs=None if has_none else inf if broken else self.max_abs,
            agreement=agreement,
            agreement_low=low,
            agreement_high=high,
            finite=self.lost == 0,
            compared=self.compared,
            misshapen=self.misshapen,
            note=self._note(),
            breach=self._breach(),
        )

    def difference(self) -> float:
        """Return the difference relative to the original's scale, without unit.

        For floats, the root mean square of the difference over that of the original, or over
        0.001 where the original is smaller; else the share of elements that are unequal.
        Infinite where a number became a NaN or an infinity, or the shapes differ.
        """
        if self.lost or self.misshapen:
            return inf
        if not self.is_float:
            share = self.agreement.share()
            return 0.0 if share is None else 1 - share[0]
        least = self.elements * _SMALLEST_SCALE**2
        return sqrt(self.difference_squares / max(self.original_squares, least, _TINY))

    def _count_breach(self, original: Array, other: Array) -> None:
        if _is_text(original) != _is_text(other):
            kind = "type"
            # The array of an empty sequence has a type that says nothing.
            is_broken = self.dims is not None or bool(original.size and other.size)
        else:
            kind = "shape"
            is_broken = self.dims is not None and _breaks(self.dims, original.shape, other.shape)
        if is_broken:
            self.breaches += 1
            self.breach = self.breach or kind

    def _add_numbers(self, original: Array, other: Array) -> None:
        if not original.size:
            return
        width = original.shape[-1] if original.ndim else 1
        first, second = original.reshape(-1, width), other.reshape(-1, width)
        step = max(1, _PIECE // width)
        agree = []
        for start in range(0, len(first), step):
            pair = first[start : start + step], second[start : start + step]
            exact = pair[0].astype(np.float64), pair[1].astype(np.float64)
            # Whole numbers of 64 bits are not exact as floats.
            agree.append(self._agree(*(exact if self.is_float else pair)))
            self._sum_up(*exact)
        if not self.is_float or width > 1:
            self.agreement.add(np.concatenate(agree), self._samples_in(original))

    def _agree(self, original: Array, other: Array) -> Array:
        """Return which rows agree, or which elements of those that hold no floats.

        A row whose largest element is not finite has no place that could agree.
        """
        if not self.is_float:
            return np.asarray(original == other)
        have_largest = np.isfinite(original.max(1)) & np.isfinite(other.max(1))
        return np.asarray(have_largest & (np.argmax(original, 1) == np.argmax(other, 1)))

    def _samples_in(self, original: Array) -> int:
        """Return how many samples the first axis counts; rows of floats have one more axis."""
        return int(original.shape[0]) if original.ndim > self.is_float else 1

    def _sum_up(self, original: Array, other: Array) -> None:
        self.elements += original.size
        usable = np.isfinite(original)
        self.compared += int(np.sum(usable))
        kept = np.isfinite(other)
        if not (usable.all() and kept.all()):
            self.left_out += int(np.sum(~usable))
            self.lost += int(np.sum(usable & ~kept))
            original = np.where(usable & kept, original, 0.0)
            other = np.where(usable & kept, other, 0.0)
        difference = original - other
        with np.errstate(over="ignore"):
            self.original_squares += float(np.vdot(original, original))
            self.other_squares += float(np.vdot(other, other))
            self.products += float(np.vdot(original, other))
            self.difference_squares += float(np.vdot(difference, difference))
        self.max_abs = max(self.max_abs, float(np.max(np.abs(difference))))

    def _cosine(self) -> float:
        if self.original_squares == 0 or self.other_squares == 0:
            return float(self.original_squares == self.other_squares)
        cosine = self.products / (sqrt(self.original_squares) * sqrt(self.other_squares))
        return min(1.0, max(-1.0, cosine))

    def _snr_db(self) -> float:
        if self.difference_squares == 0:
            return inf
        if self.original_squares == 0:
            return -inf
        return 10 * (log10(self.original_squares) - log10(self.difference_squares))

    def _squared_error(self) -> float:
        if self.difference_squares == 0:
            return 0.0
        if self.original_squares == 0:
            return inf
        return self.difference_squares / self.original_squares

    def _breach(self) -> str | None:
        if not self.breaches:
            return None
        return f"differs in {self.breach} in {self.breaches} of {self.feeds} feeds"

    def _note(self) -> str | None:
        notes = []
        if not self.compared:
            notes.append("has nothing that could be compared")
        if self.misshapen:
            notes.append(
                f"differs in shape in {self.misshapen} of {self.feeds} feeds ({self.misfit})"
            )
        if self.lost:
            notes.append(f"{self.lost} elements are no longer finite")
        if self.left_out:
            notes.append(f"{self.left_out} elements that are not finite in the original left out")
        return "; ".join(notes) or None


def _is_text(array: Array) -> bool:
    return array.dtype.kind in "OUT"


def _breaks(
    dims: tuple[int | str | None, ...], shape: tuple[int, ...], other: tuple[int, ...]
) -> bool:
    """Tell whether ``other`` has another rank, or another size where ``shape`` has a fixed one.

    A declared size to which the original itself does not keep is not fixed.
    """
    if len(shape) != len(other):
        return True
    return len(dims) == len(shape) and any(
        dim == size != found for dim, size, found in zip(dims, shape, other, strict=True)
    )


def _rows(array: Array, floats: bool) -> int:
    """Count what could have agreed, so that a feed of another shape counts as disagreement."""
    return max(1, array.size // max(1, array.shape[-1] if floats and array.ndim else 1))


def _words(array: Array) -> str:
    return f"{array.dtype}{list(array.shape)}"
