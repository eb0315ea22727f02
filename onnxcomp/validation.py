"""Is the result still right? Its outputs against the original's, provider by provider."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import islice
from math import inf, isfinite
from pathlib import Path
from statistics import median_low

import numpy as np
from pydantic import BaseModel, ConfigDict, computed_field, field_serializer

from onnxcomp.errors import ModelError, OnnxcompError
from onnxcomp.runtime.comparison import OutputComparison, OutputSums, worst_snr_db
from onnxcomp.runtime.dtypes import is_float
from onnxcomp.runtime.evaluation import Metric, evaluate, load_evaluator
from onnxcomp.runtime.ports import Port, check_outputs
from onnxcomp.runtime.samples import Feed, Samples
from onnxcomp.runtime.sessions import Session, open_session
from onnxcomp.runtime.values import Array

__all__ = [
    "Metric",
    "OutputComparison",
    "Validation",
    "evaluate",
    "load_evaluator",
    "validate",
]

OPTIMISER_FEEDS = 4
"""Feeds on which a model is run without optimisation, too."""

_NAMED = 8
_NOISE = 1e-3
_NOISE_FACTOR = 4.0
# Measured on a text recogniser: 0.4 for all of 60 feeds, either way round, and up to 28 for one of
# which a flipped frame is most. ONNX Runtime's rounding of the weights of depthwise convolutions
# that nobody rounded: 160 and more.
_ROUNDING_FACTOR = 32.0
# Rounding flips a tie now and then, and where few elements are counted one is a large share.
_FLIPPED = 0.1


class Validation(BaseModel):
    """The outputs of one model against another's, on one execution provider.

    Attributes:
        provider: The provider, as it was asked for.
        samples: Samples compared.
        synthetic: True where the samples were made up.
        outputs: One comparison for each output of the original.
        not_finite: Numbers of the samples, from 0, for which the original itself gives a NaN or an
            infinity; all of a feed where its outputs do not tell them apart.
        failure: Why the result did not load or run, in one line; None where it did.
        optimised_difference_original: How far the original's outputs with every graph
            optimisation are from its outputs with none, relative to their scale, without unit;
            the largest of the float outputs, or of all where none is float (there the share of
            unequal elements). None where the model does not run without optimisation.
        optimised_difference_result: The same for the result; infinite (null in JSON) where the
            result does not run without optimisation although the original does.
        rounding_share: Squared difference of the result's outputs with optimisation from those
            without, over that of the latter from the original's, feed by feed: the median of the
            same few feeds, and the largest of the float outputs. None where there is none.
    """

    model_config = ConfigDict(frozen=True, defer_build=True)

    provider: str
    samples: int
    synthetic: bool
    outputs: tuple[OutputComparison, ...]
    not_finite: tuple[int, ...] = ()
    failure: str | None = None
    optimised_difference_original: float | None = None
    optimised_difference_result: float | None = None
    rounding_share: float | None = None

    @computed_field  # type: ignore[prop-decorator]
    @property
    def finite(self) -> bool:
        """False where the result gives a NaN or an infinity and the original a number."""
        return all(output.finite for output in self.outputs)

    @computed_field  # type: ignore[prop-decorator]
    @property
    def optimiser_is_safe(self) -> bool:
        """False where ONNX Runtime's optimiser changes what the result computes.

        That is where the result's own difference is above four times the original's own and
        above 0.001 of the outputs' scale (where no output holds floats, above 0.1 of the
        elements). Summing in another order costs float32 models 1e-7 to 1e-5, and 1e-4 where
        compressed weights magnify it; a fusion that computes something else is off by far more.
        Where activations are rounded, one that lies between two codes may fall to the other. In
        the end that costs like rounding itself, but a few outputs may hang on it: in half of the
        feeds, a difference of 32 times the energy of rounding is allowed.
        """
        own, result = self.optimised_difference_original, self.optimised_difference_result
        if own is None or result is None:
            return True
        has_floats = any("float" in output.dtype for output in self.outputs)
        if self.rounding_share is not None and self.rounding_share <= _ROUNDING_FACTOR:
            return True
        return result <= max(_NOISE if has_floats else _FLIPPED, _NOISE_FACTOR * own)

    @property
    def problem(self) -> str | None:
        """Why the result is not valid on this provider, in one line; None where it is.

        Accuracy is no such reason.
        """
        if self.failure is not None:
            return self.failure
        for output in self.outputs:
            if output.breach is not None:
                return f"output {output.name!r} {output.breach}"
        if not self.finite:
            names = ", ".join(repr(output.name) for output in self.outputs if not output.finite)
            return f"outputs are not finite where the original's are ({names})"
        if not self.optimiser_is_safe:
            return (
                f"optimised and unoptimised outputs differ by"
                f" {self.optimised_difference_result:.2g} of their scale,"
                f" the original's by {self.optimised_difference_original:.2g}"
            )
        return None

    @property
    def fed(self) -> str:
        """What both models were fed, in words, with the samples on which nothing can be told."""
        kind = "made-up samples" if self.synthetic else "samples"
        if not self.not_finite:
            return f"{self.samples} {kind}"
        named = ", ".join(map(str, self.not_finite[:_NAMED]))
        more = ", ..." if len(self.not_finite) > _NAMED else ""
        return (
            f"{self.samples} {kind}, on {len(self.not_finite)} of which the original is not "
            f"finite itself: {named}{more}"
        )

    @property
    def worst_snr_db(self) -> float | None:
        """The lowest SNR of the float outputs, in dB; None where no output holds floats."""
        return worst_snr_db(self.outputs)

    @field_serializer(
        "optimised_difference_original",
        "optimised_difference_result",
        "rounding_share",
        when_used="json",
    )
    def _finite_or_null(self, value: float | None) -> float | None:
        return value if value is not None and isfinite(value) else None


def validate(
    original: bytes | Path,
    other: bytes | Path,
    samples: Samples,
    providers: Sequence[str] = ("cpu",),
    threads: int = 0,
    *,
    progress: Callable[[float], None] | None = None,
) -> tuple[Validation, ...]:
    """Compare a model's outputs with the original's on each provider.

    A result that does not load or run is a record with a ``failure``, not an exception. At most
    two models are loaded at a time, and sums are kept, not outputs.

    Args:
        original: A serialised model, or the path of a file.
        other: The same, of the result; it has the original's inputs and outputs by name.
        samples: What both are fed.
        providers: Names of execution providers.
        threads: Threads of one run; 0 leaves it to ONNX Runtime.
        progress: Called with the share that is done, from 0 to 1.

    Raises:
        ModelError: The original does not load or run.
        DataError: The samples do not fit the original.
        ProviderError: A provider is not installed here.
    """
    records = []
    for place, provider in enumerate(providers):

        def advance(share: float, done: int = place) -> None:
            if progress is not None:
                progress((done + share) / len(providers))

        records.append(_validate_on(provider, original, other, samples, threads, advance=advance))
    return tuple(records)


def _validate_on(
    provider: str,
    original: bytes | Path,
    other: bytes | Path,
    samples: Samples,
    threads: int,
    *,
    advance: Callable[[float], None],
) -> Validation:
    first = open_session(original, provider, threads, label=_label(original, "the original"))
    one_by_one = samples.batched(1)
    feeds = list(islice(one_by_one, OPTIMISER_FEEDS))
    expected = [first.run(feed) for feed in feeds]
    own, _ = _optimiser_differences(
        original, first.outputs, threads, feeds, optimised=expected, expected=expected
    )
    comparisons: tuple[OutputComparison, ...] = ()
    not_finite: tuple[int, ...] = ()
    failure = changed = share = None
    try:
        second = open_session(other, provider, threads, label=_label(other, "the result"))
        _check_ports(first, second)
        found = [second.run(feed) for feed in feeds]
    except OnnxcompError as error:
        failure = str(error)
    else:
        known = list(zip(expected, found, strict=True)) if one_by_one == samples else []
        comparisons, not_finite, failure = _compare(first, second, samples, known, advance)
        ports = second.outputs
        del first, second
        if failure is None and own is not None:
            changed, share = _optimiser_differences(
                other, ports, threads, feeds, optimised=found, expected=expected
            )
            changed = inf if changed is None else changed
    advance(1.0)
    return Validation(
        provider=provider,
        samples=samples.count,
        synthetic=samples.synthetic,
        outputs=comparisons,
        not_finite=not_finite,
        failure=failure,
        optimised_difference_original=own,
        optimised_difference_result=changed,
        rounding_share=share,
    )


def _compare(
    first: Session,
    second: Session,
    samples: Samples,
    known: Sequence[tuple[Mapping[str, Array], Mapping[str, Array]]],
    advance: Callable[[float], None],
) -> tuple[tuple[OutputComparison, ...], tuple[int, ...], str | None]:
    """Run both on every feed; an error of the second ends it and is returned as text.

    Args:
        first: The original.
        second: The result.
        samples: What both are fed.
        known: What both gave for the first few feeds.
        advance: Called with the share that is done.

    Returns:
        The comparisons, and the numbers of the samples on which the first is not finite.
    """
    sums = [OutputSums.of(port) for port in first.outputs]
    names = [port.name for port in first.outputs]
    not_finite: list[int] = []
    for place, feed in enumerate(samples):
        expected, got = known[place] if place < len(known) else (first.run(feed), None)
        try:
            got = second.run(feed, names) if got is None else got
        except OnnxcompError as error:
            return (), (), str(error)
        for one in sums:
            one.add(expected[one.name], got[one.name])
        numbers = samples.numbers[place * samples.batch : (place + 1) * samples.batch]
        not_finite += _not_finite(expected.values(), numbers)
        advance((place + 1) / samples.batches)
    return tuple(one.comparison() for one in sums), tuple(not_finite), None


def _not_finite(outputs: Iterable[Array], numbers: Sequence[int]) -> list[int]:
    """Return which samples of a feed, by number, give a NaN or an infinity in some output."""
    found = np.zeros(len(numbers), bool)
    for array in outputs:
        if is_float(array.dtype) and array.size:
            # Where the first axis counts the samples, each is told apart.
            rows = len(found) if array.ndim and array.shape[0] == len(found) else 1
            found |= ~np.isfinite(array.astype(np.float64)).reshape(rows, -1).all(axis=1)
    return [number for number, is_bad in zip(numbers, found, strict=True) if is_bad]


def _optimiser_differences(
    model: bytes | Path,
    outputs: Sequence[Port],
    threads: int,
    feeds: Sequence[Feed],
    *,
    optimised: Sequence[Mapping[str, Array]],
    expected: Sequence[Mapping[str, Array]],
) -> tuple[float | None, float | None]:
    """Return how far a model without optimisation is from itself with, and the rounding share.

    The first few feeds are enough: which nodes are fused does not depend on the data. Both are
    None where it does not run without optimisation.

    Args:
        model: The model.
        outputs: Its outputs.
        threads: Threads of one run.
        feeds: What it is fed.
        optimised: What it gives for each with optimisation.
        expected: What the original gives.
    """
    own = [OutputSums.of(port) for port in outputs]
    shares: list[list[float]] = [[] for _ in own]
    try:
        plain = open_session(model, "cpu", threads, optimize=False)
        for feed, others, wanted in zip(feeds, optimised, expected, strict=True):
            found = plain.run(feed)
            for sums, rounding in zip(own, shares, strict=True):
                sums.add(found[sums.name], others[sums.name])
                if sums.is_float and sums.name in wanted:
                    pair = (others[sums.name], wanted[sums.name])
                    rounding.append(_share(sums, found[sums.name], *pair))
    except ModelError:
        return None, None
    measured = [one for one in own if one.is_float] or own
    return (
        max((one.difference() for one in measured), default=0.0),
        max((median_low(each) for each in shares if each), default=None),
    )


def _share(of: OutputSums, plain: Array, optimised: Array, original: Array) -> float:
    """Return the squared error of one output by optimisation over that by everything else."""
    own, missed = (OutputSums(of.name, of.dims) for _ in range(2))
    own.add(plain, optimised)
    missed.add(plain, original)
    first, second = (one.comparison().squared_error or 0.0 for one in (own, missed))
    if not isfinite(first) or not isfinite(second):
        return inf
    return first / second if second > 0 else (0.0 if first == 0 else inf)


def _check_ports(first: Session, second: Session) -> None:
    """Check that the second model has the first one's inputs and outputs, of shapes that fit."""
    found = [port.name for port in second.outputs]
    for port in first.outputs:
        if port.name not in found:
            raise ModelError(
                f"{second.label} has no output {port.name!r} (outputs: {', '.join(found)})"
            )
    given = [port.name for port in first.inputs]
    for port in second.inputs:
        if port.name not in given:
            raise ModelError(
                f"{second.label} needs an input {port.name!r} (inputs of {first.label}:"
                f" {', '.join(given)})"
            )
    check_outputs(first, second)


def _label(model: bytes | Path, role: str) -> str:
    return str(model) if isinstance(model, Path) else role
