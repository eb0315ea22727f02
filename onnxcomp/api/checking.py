"""The library call for CI: does a model still hold what was asked of it?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from onnxcomp.api.compressing import DEFAULTS, compare
from onnxcomp.api.floors import Floor, floors_of
from onnxcomp.errors import ModelError, OptionError
from onnxcomp.report import Record, Report

if TYPE_CHECKING:
    from onnxcomp.api.settings import Limits, Settings
    from onnxcomp.api.steps import Progress


class Check(Record):
    """A model against floors.

    Attributes:
        floors: Each floor and what was measured.
        report: All that was measured.
    """

    floors: tuple[Floor, ...]
    report: Report

    @property
    def missed(self) -> tuple[Floor, ...]:
        """The floors that are missed for certain."""
        return tuple(each for each in self.floors if each.verdict == "missed")


def check(
    model: Any,
    original: Any,
    limits: Limits,
    *,
    data: Any = None,
    settings: Settings = DEFAULTS,
    progress: Progress = lambda _what, _share: None,
) -> Check:
    """Hold a model, made by whatever tool, against floors; time it only if one is of latency.

    Args:
        model: A model with the original's inputs and outputs; as for `compress`.
        original: What it was made from; likewise.
        limits: Floors of size and latency.
        data: As for `compress`.
        settings: Floors of accuracy, and how to measure.
        progress: Told what is being done and the share of it that is done.

    Raises:
        OptionError: There is no floor.
        ModelError: The model is not valid: it does not run, gives other shapes, is not finite or
            is miscompiled.
        OnnxcompError: The original does not run, or the data does not fit it.
    """
    accuracy = (settings.max_drop, settings.min_snr)
    if all(each is None for each in (*accuracy, *limits.model_dump().values())):
        raise OptionError(
            "check has no floor; give --max-drop, --min-snr, --min-size-ratio or "
            "--max-latency-ratio"
        )
    timed = settings.model_copy(update={"bench": limits.max_latency_ratio is not None})
    report = compare(original, model, data=data, settings=timed, progress=progress)
    problem = next((each.problem for each in report.validation if each.problem), None)
    if problem is not None:
        raise ModelError(f"{report.output.path or 'the model'}: {problem}")
    return Check(floors=tuple(floors_of(report, settings, limits)), report=report)
