"""The pass: one rewrite of a graph, which is its own configuration."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from enum import IntEnum
from fnmatch import fnmatchcase
from math import log
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import Field

from onnxcomp.errors import OptionError
from onnxcomp.graph import weights
from onnxcomp.options import Options
from onnxcomp.statistics import InputStatistics, walk, watch_inputs
from onnxcomp.verdicts import Verdict

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Self

    from onnxcomp.graph import Model, Weight
    from onnxcomp.runtime import Samples
    from onnxcomp.statistics import Layer, Statistics


class Stage(IntEnum):
    """Where a pass belongs in a pipeline: later ones absorb the error of earlier ones."""

    SIMPLIFY = 1
    PRUNE_CHANNELS = 2
    FACTORIZE = 3
    PRUNE = 4
    CODE = 5
    CORRECT = 6


@dataclass(frozen=True)
class Context:
    """What a pass may know besides the model.

    Args:
        samples: Calibration samples, where the caller gave some.
        statistics: Statistics of the model that came, where the caller gave those.
        seed: What all randomness comes from.
        progress: Told the share of the work that is done, 0 to 1.
        min_snr: The least signal-to-noise ratio of the outputs that was asked for, in dB.
        decide: Told which passes do, without measuring anything, what a pass decided by measuring:
            they are the recipe that gives the same bytes again.
        recall: Gives plain data that was measured before under a name, or calls what measures it:
            a search remembers what its candidates share. The name says all that the data depends
            on besides the model that came, the samples and the seed.
    """

    samples: Samples | None = None
    statistics: Statistics | None = None
    seed: int = 0
    progress: Callable[[float], None] = lambda _: None
    min_snr: float | None = None
    decide: Callable[[Sequence[Pass]], None] = lambda _: None
    recall: Callable[[str, Callable[[], Any]], Any] = lambda _, measure: measure()

    def part(self, start: float, stop: float) -> Context:
        """Return the context of a part of the work: from one share of it to another."""
        return replace(self, progress=lambda share: self.progress(start + (stop - start) * share))

    def inputs_of(self, model: Model, chosen: Sequence[Layer]) -> list[InputStatistics]:
        """Return what some layers multiply their weights with: observed, or else as it is known.

        Where neither samples nor statistics are there, nothing is known.
        """
        if self.samples is not None:
            watches, inputs = watch_inputs(chosen)
            walk((model,), watches, self.samples, self.progress)
            return inputs
        if self.statistics is not None:
            return [self.statistics.of(layer) for layer in chosen]
        return [InputStatistics() for _ in chosen]


@dataclass(frozen=True)
class Strength:
    """The option by which a pass does more, for a search to turn.

    Args:
        option: A field of the pass that holds a number above 0, or None.
        mildest: Its value where the pass does next to nothing.
        strongest: Its value beyond which no model survives.
    """

    option: str
    mildest: float
    strongest: float

    def at(self, share: float) -> float:
        """Return the value at a share of the way, 0 to 1: geometric, to four digits."""
        value = self.mildest * (self.strongest / self.mildest) ** share
        return float(f"{value:.4g}")

    def share_of(self, value: float) -> float:
        """Return at which share of the way a value is, 0 to 1."""
        share = log(value / self.mildest) / log(self.strongest / self.mildest)
        return min(1.0, max(0.0, share))


class Pass(Options, ABC):
    """One rewrite of a graph. A subclass's fields are its options, declared once.

    The command, the recipe entry, the checks and the schema of a pass come from its fields:
    ``bits: Annotated[int, Field(ge=1, le=8, description="...")] = 4``. Every field has a default.

    A subclass sets ``name``, its command, and ``stage``. Its docstring is the command's help.
    """

    stage: ClassVar[Stage]

    include: Annotated[
        tuple[str, ...], Field(description="Only tensors whose name matches one of these globs.")
    ] = ()
    exclude: Annotated[
        tuple[str, ...], Field(description="No tensors whose name matches one of these globs.")
    ] = ()

    @property
    def strength(self) -> Strength | None:
        """What a search turns; None if there is nothing."""
        return None

    @property
    def needs_data(self) -> bool:
        """Whether `apply` raises an `OptionError` without samples and without statistics."""
        return False

    @property
    def saves_bytes(self) -> bool:
        """Whether a result that is not smaller is undone."""
        return True

    @property
    def reads(self) -> tuple[str, ...]:
        """Paths of models that it reads beside the one that it rewrites."""
        return ()

    @abstractmethod
    def apply(self, model: Model, context: Context) -> list[Verdict]:
        """Rewrite ``model`` in place.

        Returns:
            A verdict for every weight-like tensor. If none is ``changed`` and no node
            is gone, the model was not changed.
        """

    def at(self, share: float) -> Self:
        """Return this pass at a share of its strength: 0 for the mildest, 1 for the strongest.

        Raises:
            OptionError: It has no strength, or the option contradicts those that are set.
        """
        if self.strength is None:
            raise OptionError(f"{self.name}: there is no option by which it does more")
        options = {**self.model_dump(exclude_unset=True)}
        options[self.strength.option] = self.strength.at(share)
        return self.model_validate(options)

    def candidates(self, model: Model) -> tuple[list[Weight], list[Verdict]]:
        """Return the weights that this pass may change, and verdicts on all others."""
        chosen: list[Weight] = []
        skipped: list[Verdict] = []
        for weight in weights(model):
            reason = weight.unsuitable
            if reason is None and not self.selects(weight.name):
                reason = "was not selected by include and exclude"
            if reason is None:
                chosen.append(weight)
            else:
                skipped.append(skip(weight, reason))
        return chosen, skipped

    def selects(self, name: str) -> bool:
        """Whether ``include`` and ``exclude`` let this pass change a tensor."""
        included = not self.include or any(fnmatchcase(name, glob) for glob in self.include)
        return included and not any(fnmatchcase(name, glob) for glob in self.exclude)


def skip(weight: Weight, reason: str) -> Verdict:
    """Return the verdict on a weight that was left alone."""
    return Verdict(
        name=weight.name,
        op_types=weight.op_types,
        shape=weight.shape,
        verdict="skipped",
        reason=reason,
        bytes_before=weight.tensor.nbytes,
        bytes_after=weight.tensor.nbytes,
    )


def change(weight: Weight, reason: str, *, before: int, after: int, error: float) -> Verdict:
    """Return the verdict on a weight that was changed.

    Args:
        weight: The weight.
        reason: How it was changed.
        before: Bytes that it took in the file.
        after: Bytes that it takes now.
        error: Relative Frobenius error of its values, without unit.
    """
    return Verdict(
        name=weight.name,
        op_types=weight.op_types,
        shape=weight.shape,
        verdict="changed",
        reason=reason,
        bytes_before=before,
        bytes_after=after,
        error=error,
    )
