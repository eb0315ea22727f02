"""What a search is after, and how long it may take."""

from __future__ import annotations

from math import inf, sqrt
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, get_args

from pydantic import Field

from onnxcomp.options import Options

if TYPE_CHECKING:
    from onnxcomp.api import Limits
    from onnxcomp.report import Trial

NO_SLOWER = 1.02
"""Most latency ratio of a result that is to be small; slower is one whose interval is above."""


Goal = Literal["size", "speed", "balanced"]

GOALS: tuple[Goal, ...] = get_args(Goal)


class Aim(Options):
    """What a search is after, and how long it may take."""

    name: ClassVar[str] = "search"

    goal: Annotated[
        Goal,
        Field(
            description="The smallest file that is no slower; the fastest that is no larger, if "
            "it is measurably faster; or the least product of both ratios."
        ),
    ] = "size"
    target: Annotated[
        str | None,
        Field(
            description="Passes to choose from: a preset, such as edge or mobile, or a recipe "
            "file; those that suit the goal if not given. What a recipe sets stays as it is set."
        ),
    ] = None
    labels: Annotated[
        str | None,
        Field(
            description="Classes of the samples, a .npy or .npz of integers: accuracy is then the "
            "metric, on the samples that no pass sees."
        ),
    ] = None
    minutes: Annotated[
        float,
        Field(
            gt=0,
            allow_inf_nan=False,
            description="Time to look for better pipelines; up to twice that until there is a "
            "first result, and some for checking the best in the end.",
        ),
    ] = 10.0
    jobs: Annotated[int, Field(ge=1, description="Pipelines tried at once, in processes.")] = 1
    cache: Annotated[
        str | None,
        Field(
            description="Folder in which finished trials are kept, so that a search that was "
            "interrupted goes on; one in the user's cache if not given."
        ),
    ] = None

    def objective(self, trial: Trial, original_bytes: int, limits: Limits) -> float:
        """Return what is to be as small as can be; infinite for a result that does not do.

        Beyond a limit it is by how many times, so that a search finds its way within.

        Args:
            trial: One that gave a result.
            original_bytes: Of the original's files.
            limits: What size and latency must hold.
        """
        if trial.bytes is None or trial.latency_ratio is None or trial.latency_low is None:
            return inf
        size, latency = trial.bytes / original_bytes, trial.latency_ratio
        beyond = size * (limits.min_size_ratio or 0.0)
        if limits.max_latency_ratio is not None:
            beyond = max(beyond, trial.latency_low / limits.max_latency_ratio)
        if beyond > 1:
            return beyond
        if self.goal == "size":
            return size if trial.latency_low <= NO_SLOWER else inf
        if self.goal == "speed":
            is_faster = trial.latency_high is not None and trial.latency_high < 1
            return latency if size <= 1 and is_faster else inf
        return sqrt(size * latency)
