"""What becomes of a weight that is clustered: the nearest codes, or better ones for its layer."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from onnxcomp.layerwise import Curve, Method
from onnxcomp.recovery import Feedback, support_of
from onnxcomp.stores import FOLDING_LIMIT, TOO_LARGE
from onnxcomp_passes.cluster.coding import (
    Coding,
    EntryType,
    code_exactly,
    code_groups,
    code_scaled,
    code_tensor,
    code_vectors,
)
from onnxcomp_passes.cluster.curves import (
    CHOICES,
    PROBES,
    Choice,
    curve_of,
    feedbacks_of,
    problem_of,
)
from onnxcomp_passes.cluster.recoding import Grid

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from onnxcomp.graph import Constant, Weight
    from onnxcomp.layerwise.method import Tables
    from onnxcomp.recovery import Problem
    from onnxcomp.statistics import InputStatistics, Layer
    from onnxcomp.stores import Store

    Floats = NDArray[np.float64]

Granularity = Literal["scale", "tensor", "group"]


@dataclass(frozen=True)
class Codebooks:
    """What codebooks a weight gets.

    Args:
        bits: Bits a weight.
        clusters: Entries of a codebook; instead of bits.
        granularity: What shares one, as of `Cluster`.
        group_size: Output channels that do.
        width: Neighbouring weights that one code stands for.
        entries: Type in which they are stored.
        seed: What all randomness comes from.
    """

    bits: int
    clusters: int | None
    granularity: Granularity
    group_size: int
    width: int
    entries: EntryType
    seed: int

    @property
    def size(self) -> int:
        """Entries of a codebook."""
        return self.clusters or 2 ** (self.bits * self.width)

    def code(self, values: NDArray[Any], axis: int, common: Floats | None) -> tuple[Coding, str]:
        """Code values without data; say how.

        Args:
            values: The weight.
            axis: The axis of its output channels.
            common: The codebook that all weights share; None where each has its own.
        """
        size = self.size
        exact = code_exactly(values, self.clusters or 2**self.bits)
        if exact is not None:
            return exact, f"{len(exact.codebook.entries)} distinct values, stored exactly"
        along = axis if self.granularity == "scale" else None
        if self.width > 1:
            vectors = code_vectors(
                values, size, self.width, self.entries, axis=along, seed=self.seed
            )
            return vectors, f"{size} vectors of {self.width}"
        if self.granularity == "group":
            grouped = code_groups(values, size, self.entries, axis, self.group_size)
            return grouped, f"{grouped.codebook.groups} codebooks of {size}"
        if self.granularity == "tensor" and common is None:
            return code_tensor(values, size, self.entries), f"{size} clusters"
        scaled = code_scaled(values, size, self.entries, along, common)
        channels = "a scale per channel" if along is not None else "one scale"
        which = "the model's " if common is not None else ""
        return scaled, f"{which}{size} clusters, {channels}"


@dataclass(eq=False)
class Clustering(Method[Choice, Coding]):
    """Codes weights by codebooks.

    Args:
        codebooks: What they are, unless something else was chosen for a weight.
        common: The entries that all weights share; None where each has its own.
    """

    choices: ClassVar[Sequence[Choice]] = CHOICES
    probed: ClassVar[Sequence[int]] = [CHOICES.index(each) for each in PROBES]

    codebooks: Codebooks
    common: Floats | None
    _known: dict[Constant, tuple[Choice | None, Coding, str]] = field(default_factory=dict)

    def code(
        self, weight: Weight, values: NDArray[Any], choice: Choice | None
    ) -> tuple[Coding, str]:
        """Code values of a weight without data, by a choice for it if there is one; say how."""
        codebooks = self.codebooks if choice is None else choice.of(self.codebooks)
        return codebooks.code(values, weight.output_axis, self.common)

    def plain(
        self, layer: Layer, values: NDArray[Any], choice: Choice | None
    ) -> tuple[Coding, str]:
        """Return the nearest codes, which are found once for each choice."""
        weight = layer.weight
        known = self._known.get(weight.tensor)
        if known is None or known[0] != choice:
            known = choice, *self.code(weight, values, choice)
            self._known[weight.tensor] = known
        return known[1:]

    def candidates(
        self,
        layer: Layer,
        values: NDArray[Any],
        problem: Problem,
        choice: Choice | None,
        how: str,
    ) -> Iterator[tuple[tuple[Coding, str], NDArray[np.floating]]]:
        """Yield codes for the columns that a layer gets.

        These are the nearest codes, error feedback from the weight itself, and error feedback
        from the weights that are best for what the layers before now give.
        """
        for coding, done in self._candidates(layer, values, problem, choice):
            yield (coding, f"{how}; {done}"), layer.form.to_matrices(coding.decoded(values))

    def _candidates(
        self, layer: Layer, values: NDArray[Any], problem: Problem, choice: Choice | None
    ) -> Iterator[tuple[Coding, str]]:
        plain = self._known.pop(layer.weight.tensor)[1]
        yield plain, "nearest codes"
        grid = Grid(plain, layer.form, values.dtype)
        if grid.width is None:
            return
        feedbacks = [Feedback(damped, grid.width) for damped in problem.damped]
        support = support_of(problem.weights)
        yield grid.recode(problem.weights, feedbacks, support), "error feedback"
        if problem.is_paired:
            target = problem.target(support)
            refitted = layer.form.to_tensor(target).astype(values.dtype)
            again, _ = self.code(layer.weight, refitted, choice)
            grid = Grid(again, layer.form, values.dtype)
            found = grid.recode(target, feedbacks, support)
            yield found, "error feedback after refit"
            refit = grid.refit(found, target, problem.second)
            if refit is not None:
                yield refit, "error feedback after refit, codebook refitted"

    def curve(self, layer: Layer, inputs: InputStatistics, *, has_probes: bool) -> Curve:
        """Return what a weight takes and loses by each choice, after error feedback.

        Errors are those of a part of the outputs and of held-out columns: feedback from few
        columns looks perfect on those.
        """
        problem = problem_of(layer, inputs)
        feedbacks = [] if problem is None else feedbacks_of(problem)
        nbytes, errors = curve_of(layer.weight, problem, feedbacks, inputs.held_out)
        probes = [
            (errors[index], self._probe(layer, problem, feedbacks, CHOICES[index]))
            for index in (self.probed if has_probes else ())
        ]
        return Curve(nbytes, errors, probes)

    def _probe(
        self,
        layer: Layer,
        problem: Problem | None,
        feedbacks: Sequence[Feedback],
        choice: Choice,
    ) -> NDArray[Any]:
        """Return a weight as it is when it is coded so."""
        values = layer.weight.load()
        coding, _ = self.code(layer.weight, values, choice)
        if problem is not None:
            grid = Grid(coding, layer.form, values.dtype)
            coding = grid.recode(problem.weights, feedbacks, support_of(problem.weights))
        return coding.decoded(values)

    def store(self, layer: Layer, made: Coding, values: NDArray[Any], present: Tables) -> Store:
        """Return codes as they are stored."""
        weight = layer.weight
        store = made.store(values, weight.opset, present)
        if weight.size * weight.dtype.itemsize > FOLDING_LIMIT and not store.decodes_rows:
            raise ValueError(TOO_LARGE)
        return store
