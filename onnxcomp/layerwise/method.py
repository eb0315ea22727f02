"""What a pass supplies: the mathematics of one weight. All else is done here, once for all."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    import numpy as np
    from numpy.typing import NDArray

    from onnxcomp.recovery import Problem
    from onnxcomp.statistics import Layer
    from onnxcomp.stores import Store

    Floats = NDArray[np.float64]
    Tables = Collection[tuple[object, ...]]
    """Tables of decodings that the file has by now."""

Made = TypeVar("Made")
"""What a method makes of a weight, before it is stored: codes, a mask, values."""


class Method(ABC, Generic[Made]):
    """What becomes of one weight, without data and with it, and how that is stored.

    The weights that it is given are finite floats. It changes nothing in a model.
    """

    @abstractmethod
    def plain(self, layer: Layer, values: NDArray[Any]) -> tuple[Made, str]:
        """Return what becomes of a weight without data, and what was done in words.

        Args:
            layer: The weight and what multiplies it.
            values: The weight.

        Raises:
            ValueError: It stays as it is; the message says why, in words that follow its name.
        """

    @abstractmethod
    def candidates(
        self, layer: Layer, values: NDArray[Any], problem: Problem, how: str
    ) -> Iterable[tuple[tuple[Made, str], NDArray[np.floating]]]:
        """Yield what could become of a weight, for what its layer multiplies it with.

        Which is kept is measured on columns that none of them was made from.

        Args:
            layer: The weight and what multiplies it.
            values: The original's weight.
            problem: The layer as a least-squares problem.
            how: What was done without data, in words.

        Yields:
            What was made and how, and the weights that it gives, shape (groups, outputs, inputs).
        """

    @abstractmethod
    def store(self, layer: Layer, made: Made, values: NDArray[Any], present: Tables) -> Store:
        """Return what was made as it is stored.

        Args:
            layer: The weight.
            made: What was made of it.
            values: The original's weight.
            present: Tables that the file has.

        Raises:
            ValueError: It stays as it is; the message says why, in words that follow its name.
        """

    def finished(
        self, layer: Layer, problem: Problem, made: Made, shift: Floats
    ) -> tuple[Made, Floats, str]:
        """Return the candidate that is kept after a last touch, its shift, and words for it.

        Args:
            layer: The weight and what multiplies it.
            problem: The layer as a least-squares problem.
            made: What was made.
            shift: What is added to each output, shape (groups, outputs).
        """
        del layer, problem
        return made, shift, ""

    def why_not(self, made: Made, before: int, after: int) -> str | None:
        """Return why what was made without data is not worth it; None where it is.

        Args:
            made: What was made.
            before: Bytes that the weight takes.
            after: Bytes that it would take.
        """
        del made
        return None if after < before else f"would not be smaller ({before} bytes, {after} stored)"

    def is_repaired(self, layer: Layer) -> bool:
        """Whether there are candidates for a weight."""
        del layer
        return True
