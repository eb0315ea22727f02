"""What a pass supplies: the mathematics of one weight. All else is done here, once for all."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

import numpy as np

from onnxcomp.recovery import Problem, held_out_error, relative_error

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from numpy.typing import NDArray

    from onnxcomp.statistics import InputStatistics, Layer
    from onnxcomp.stores import Store

    Floats = NDArray[np.float64]
    Tables = Collection[tuple[object, ...]]
    """Tables of decodings that the file has by now."""

Choice = TypeVar("Choice")
"""One strength of a method: 3 bits, 60 % zeros."""

Made = TypeVar("Made")
"""What a method makes of a weight, before it is stored: codes, a mask, values."""


@dataclass(frozen=True, eq=False)
class Curve:
    """What one weight takes and loses by each choice of a method.

    Args:
        nbytes: Bytes in the file.
        errors: Squared errors, relative to the outputs of the layer, or to the weight where those
            are not known; infinite for what is no choice.
        probes: The weight as it is with some of the choices, with the errors of those, ascending;
            as many for every weight.
    """

    nbytes: Sequence[int]
    errors: Sequence[float]
    probes: Sequence[tuple[float, NDArray[Any]]]


class Method(ABC, Generic[Choice, Made]):
    """What becomes of one weight, without data and with it, and how that is stored.

    The weights that it is given are finite floats. It changes nothing in a model.
    """

    choices: ClassVar[Sequence[Any]] = ()
    """What a budget chooses from."""

    probed: ClassVar[Sequence[int]] = ()
    """Those, by their index, at which it is measured what the outputs of a model lose, the ones
    that lose least first."""

    @abstractmethod
    def plain(self, layer: Layer, values: NDArray[Any], choice: Choice | None) -> tuple[Made, str]:
        """Return what becomes of a weight without data, and what was done in words.

        Args:
            layer: The weight and what multiplies it.
            values: The weight.
            choice: What was chosen for it; None where its pass says what all become.

        Raises:
            ValueError: It stays as it is; the message says why, in words that follow its name.
        """

    @abstractmethod
    def candidates(
        self,
        layer: Layer,
        values: NDArray[Any],
        problem: Problem,
        choice: Choice | None,
        how: str,
    ) -> Iterable[tuple[tuple[Made, str], NDArray[np.floating]]]:
        """Yield what could become of a weight, for what its layer multiplies it with.

        Which is kept is measured on columns that none of them was made from.

        Args:
            layer: The weight and what multiplies it.
            values: The original's weight.
            problem: The layer as a least-squares problem.
            choice: As in `plain`.
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

    def curve(self, layer: Layer, inputs: InputStatistics, *, has_probes: bool) -> Curve:
        """Return what a weight takes and loses by each choice, on held-out columns if there are.

        Args:
            layer: The weight and what multiplies it.
            inputs: Statistics of that.
            has_probes: Whether probes are asked for.
        """
        values, moments = layer.weight.load(), inputs.fit
        problem = None
        if moments is not None:
            problem = Problem.of(layer.form.to_matrices(values), moments, shifts=False)
        nbytes, errors, probes = [], [], {}
        for index, choice in enumerate(self.choices):
            size, found = self._tried(layer, values, choice)
            nbytes.append(size)
            errors.append(inf if found is None else _error(layer, values, found, problem, inputs))
            if has_probes and index in self.probed:
                # What loses nothing tells nothing, and counts like the others.
                probes[index] = (0.0, values) if found is None else (errors[-1], found)
        return Curve(nbytes, errors, [probes[index] for index in self.probed if index in probes])

    def _tried(
        self, layer: Layer, values: NDArray[Any], choice: Choice
    ) -> tuple[int, NDArray[Any] | None]:
        """Return the bytes and the values of a weight by a choice; None where it is none."""
        try:
            made, _ = self.plain(layer, values, choice)
            store = self.store(layer, made, values, ())
        except ValueError:
            return layer.weight.tensor.nbytes, None
        return store.added_bytes(()), store.load()

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

    def why_plain(self, layer: Layer) -> str | None:
        """Return why there are no candidates for a weight, with data too; None where there are.

        It is empty where that goes without saying: what was made without data is the best.

        Args:
            layer: The weight, and what multiplies it.
        """
        del layer
        return None


def _error(
    layer: Layer,
    values: NDArray[Any],
    found: NDArray[Any],
    problem: Problem | None,
    inputs: InputStatistics,
) -> float:
    """Return the squared error of outputs, or of the weight where those are not known."""
    if problem is None:
        return relative_error(values, found) ** 2
    matrices = layer.form.to_matrices(found)
    if inputs.held_out is None:
        return problem.error(matrices)
    none = np.zeros(problem.weights.shape[:2])
    return held_out_error(problem.weights, matrices, none, inputs.held_out)
