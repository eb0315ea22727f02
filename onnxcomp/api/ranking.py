"""The library call that finds the culprit: which weight a pass should have left alone."""

from __future__ import annotations

from dataclasses import dataclass, replace
from glob import escape
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from onnxcomp.api.steps import apply_pass
from onnxcomp.errors import DataError, ModelError, OnnxcompError, OptionError, PassError
from onnxcomp.graph import copy_model, load_model, referring_bytes, weights
from onnxcomp.pipeline import Context
from onnxcomp.report import RankedWeight, Sensitivity, Treatment
from onnxcomp.runtime import open_session, samples_for
from onnxcomp.runtime.comparison import OutputSums
from onnxcomp.runtime.dtypes import is_float
from onnxcomp.statistics import held_out_samples, observe

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from onnxcomp.api.steps import Progress
    from onnxcomp.graph import Model
    from onnxcomp.pipeline import Pass
    from onnxcomp.runtime import Array, Feed, Port, Samples, Session
    from onnxcomp.runtime.comparison import OutputComparison
    from onnxcomp.verdicts import Verdict

MOST_SAMPLES = 64
"""Held-out samples that results are run on at most; these and the original's outputs are kept."""


def sensitivity(
    model: Any,
    one_pass: Pass,
    *,
    data: Any,
    samples: int | None = None,
    seed: int = 0,
    provider: str = "cpu",
    threads: int = 0,
    progress: Progress = lambda _what, _share: None,
) -> Sensitivity:
    """Rank weights by the error of the outputs when a pass changes each of them and no other.

    The model is observed once, and the pass calibrates on those statistics each time, as with
    ``statistics`` of `compress`; it is given the samples too where it says that it needs them.
    Errors are measured on one sample in five, those of which no statistics are made, and on 64 of
    them at most; where there are so few that none is held out, on the first. Weights of the same
    name count as one.

    Args:
        model: As for `compress`; it is not changed.
        one_pass: The pass, set up as it is to be used.
        data: Samples: whatever `onnxcomp.runtime.read_samples` takes.
        samples: Use the first so many of them; None for all.
        seed: What all randomness comes from.
        provider: Execution provider that results are run on.
        threads: Threads of a run; 0 leaves it to ONNX Runtime.
        progress: Told what is being done and the share of it that is done.

    Raises:
        ModelError: The model does not run, or none of its outputs holds floats.
        OptionError: The pass changes no weight.
        PassError: The pass fails, or cannot change one weight alone.
        OnnxcompError: Something else is wrong; see `onnxcomp.errors`.
    """
    graph = load_model(model)
    session = _open_original(model, graph, provider, threads)
    read = samples_for(session, data, samples, seed)
    yardstick = _yardstick(session, held_out_samples(read, MOST_SAMPLES), threads)
    del session
    observed = observe(graph, read, lambda share: progress("observing", share))
    trial = _Trial(one_pass, graph, Context(None, observed, seed), yardstick)
    trial, verdicts, together = trial.whole(read, progress)
    return Sensitivity(
        version=version("onnxcomp"),
        source=str(model) if isinstance(model, str | Path) else None,
        name=one_pass.name,
        options=one_pass.model_dump(mode="json"),
        provider=provider,
        samples=yardstick.samples,
        weights=tuple(_ranked(trial, verdicts, progress)),
        together=together,
    )


@dataclass(frozen=True)
class _Yardstick:
    """What results are held against.

    Args:
        ports: Outputs of the original.
        runs: Feeds, and the outputs that the original gives for each.
        samples: Samples in all the feeds.
        provider: Where results are run.
        threads: Threads of a run.
    """

    ports: tuple[Port, ...]
    runs: tuple[tuple[Feed, dict[str, Array]], ...]
    samples: int
    provider: str
    threads: int

    def compare(self, model: Model) -> tuple[tuple[OutputComparison, ...], str | None]:
        """Return how close a model's outputs are, or why it does not load or run."""
        sums = [OutputSums.of(port) for port in self.ports]
        names = [port.name for port in self.ports]
        try:
            data, folder = referring_bytes(model)
            session = open_session(
                data, self.provider, self.threads, label="the result", folder=folder
            )
            for feed, wanted in self.runs:
                got = session.run(feed, names)
                for one in sums:
                    one.add(wanted[one.name], got[one.name])
        except OnnxcompError as error:
            return (), str(error)
        return tuple(one.comparison() for one in sums), None


@dataclass(frozen=True)
class _Trial:
    """A pass, and what it is tried on."""

    one: Pass
    graph: Model
    context: Context
    yardstick: _Yardstick

    def whole(
        self, samples: Samples, progress: Progress
    ) -> tuple[_Trial, tuple[Verdict, ...], Treatment]:
        """Apply the pass to all weights; return also what it is to be tried with from now on.

        Statistics spare it a calibration run for each weight, but it may need samples.
        """

        def told(trial: _Trial) -> Context:
            return replace(trial.context, progress=lambda share: progress(self.one.name, share))

        trial, copied = self, copy_model(self.graph)
        try:
            verdicts = apply_pass(self.one, copied, told(trial))
        except OnnxcompError:
            trial = replace(self, context=replace(self.context, samples=samples))
            copied = copy_model(self.graph)
            verdicts = apply_pass(self.one, copied, told(trial))
        return trial, verdicts, Treatment(**trial.cost(copied, verdicts))

    def alone(self, name: str) -> tuple[dict[str, Any], tuple[Verdict, ...]]:
        """Apply the pass to one weight; return the fields of a `Treatment`, and the verdicts.

        Raises:
            PassError: It cannot be applied to this one alone.
        """
        narrowed = self.one.model_copy(update={"include": (escape(name),)})
        copied = copy_model(self.graph)
        try:
            verdicts = apply_pass(narrowed, copied, self.context)
        except OnnxcompError as error:
            raise PassError(f"{self.one.name} cannot change {name!r} alone: {error}") from error
        return self.cost(copied, verdicts), verdicts

    def cost(self, result: Model, verdicts: Sequence[Verdict]) -> dict[str, Any]:
        """Return the fields of a `Treatment`."""
        outputs, failure = self.yardstick.compare(result)
        changed = [each for each in verdicts if each.verdict == "changed"]
        return {
            "bytes_before": sum(each.bytes_before for each in changed),
            "bytes_after": sum(each.bytes_after for each in changed),
            "outputs": outputs,
            "failure": failure,
        }


def _ranked(
    trial: _Trial, verdicts: Sequence[Verdict], progress: Progress
) -> Iterator[RankedWeight]:
    """Try every weight that the pass changed, and yield them with the worst first.

    Raises:
        OptionError: It changed none.
    """
    changed: dict[str, Verdict] = {}
    for each in verdicts:
        if each.verdict == "changed":
            changed.setdefault(each.name, each)
    if not changed:
        raise OptionError(_nothing_changed(trial.one, verdicts))
    total = sum(weight.tensor.nbytes for weight in weights(trial.graph))
    found = []
    for done, (name, verdict) in enumerate(changed.items()):
        cost, own = trial.alone(name)
        said = next((each for each in own if each.name == name), verdict)
        found.append(
            RankedWeight(
                rank=0,
                name=name,
                op_types=verdict.op_types,
                shape=verdict.shape,
                share=verdict.bytes_before / total,
                reason=said.reason,
                weight_error=said.error,
                **cost,
            )
        )
        progress("ranking", (done + 1) / len(changed))
    # Equal ones stay in the order of the file.
    found.sort(key=lambda each: -each.squared_error)
    for place, ranked in enumerate(found):
        yield ranked.model_copy(update={"rank": place + 1})


def _nothing_changed(one: Pass, verdicts: Sequence[Verdict]) -> str:
    largest = max(verdicts, key=lambda each: each.bytes_before, default=None)
    why = "it has none" if largest is None else f"{largest.name!r} {largest.reason}"
    return f"{one.name} changes no weight of the model ({why}); choose another pass or options"


def _open_original(given: Any, graph: Model, provider: str, threads: int) -> Session:
    """Open the original; a file is opened where it is."""
    if isinstance(given, str | Path):
        return open_session(Path(given), provider, threads)
    data, folder = referring_bytes(graph)
    return open_session(data, provider, threads, folder=folder)


def _yardstick(session: Session, samples: Samples, threads: int) -> _Yardstick:
    """Run the original.

    Raises:
        DataError: Nothing in the outputs is finite.
        ModelError: No output holds floats.
    """
    runs = tuple((feed, session.run(feed)) for feed in samples)
    outputs = [item for _, outputs in runs for item in outputs.items()]
    floats = [array for _, array in outputs if is_float(array.dtype)]
    if not floats:
        types = ", ".join(dict.fromkeys(f"{name}: {array.dtype}" for name, array in outputs))
        raise ModelError(
            f"no output of the model holds floats ({types}), so no error can be told; "
            "make the tensor that they come from an output too"
        )
    if not any(np.isfinite(array.astype(np.float64)).any() for array in floats):
        raise DataError(
            f"{samples.source}: the model gives nothing finite on {samples.count} samples, so no "
            "error can be told; give others"
        )
    return _Yardstick(session.outputs, runs, samples.count, session.provider, threads)
