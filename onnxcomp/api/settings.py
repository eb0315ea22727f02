"""How a result is checked and timed, and the floor that it must not miss."""

from __future__ import annotations

from collections.abc import Callable
from math import inf, nan
from typing import Annotated, Any, ClassVar

from pydantic import Field

from onnxcomp.errors import OptionError
from onnxcomp.options import Options


class Settings(Options):
    """How results are checked and timed: options common to all commands that write."""

    name: ClassVar[str] = "settings"

    samples: Annotated[
        int | None,
        Field(ge=1, description="Use the first so many samples, or files, of the data."),
    ] = None
    evaluate: Annotated[
        str | Callable[..., Any] | None,
        Field(
            description="Task metric, higher is better: file.py:function or "
            "package.module:function, called with predict(feed) -> {output: array}; it returns a "
            "number, or an array of one for each item."
        ),
    ] = None
    max_drop: Annotated[
        str | float | None,
        Field(
            description="Most that the metric may drop: 0.01, or relative 1%; without evaluate, "
            "most of the rows whose largest output is at another place. A miss exits 3."
        ),
    ] = None
    min_snr: Annotated[
        float | None,
        Field(
            allow_inf_nan=False,
            description="Least signal-to-noise ratio of each output, in dB. A miss exits 3.",
        ),
    ] = None
    provider: Annotated[
        tuple[str, ...],
        Field(min_length=1, description="Execution provider to check and time on; repeatable."),
    ] = ("cpu",)
    threads: Annotated[
        int, Field(ge=0, description="Threads of a run; 0 leaves it to ONNX Runtime.")
    ] = 0
    seed: Annotated[int, Field(ge=0, description="What all randomness comes from.")] = 0
    validation: Annotated[
        bool,
        Field(alias="validate", description="Run the result and compare it with the original."),
    ] = True
    calibration: Annotated[
        int | None,
        Field(
            ge=1,
            description="Let passes see so many of the samples at most, evenly spread; all if "
            "not given, in a search 64.",
        ),
    ] = None
    hold_out: Annotated[
        bool,
        Field(description="Keep one sample of five from the passes, and compare on those alone."),
    ] = False
    compared: Annotated[
        int | None,
        Field(
            ge=1,
            description="Compare outputs on so many of the samples at most, evenly spread; all if "
            "not given, in a search as many as a quarter of its time is enough for.",
        ),
    ] = None
    bench: Annotated[bool, Field(description="Time the result against the original.")] = True
    bench_seconds: Annotated[
        float | None,
        Field(
            gt=0,
            allow_inf_nan=False,
            description="Most seconds that timing takes, with fewer rounds and wider intervals; "
            "as many as 30 rounds need if not given.",
        ),
    ] = None

    def model_post_init(self, context: Any, /) -> None:
        """Refuse a floor of which nothing would be measured."""
        del context
        if self.max_drop is not None:
            self.allowed_drop(1.0)
            if self.evaluate is None and not self.validation:
                raise OptionError("max_drop needs evaluate or validate: nothing else can drop")
        if self.min_snr is not None and not self.validation:
            raise OptionError("min_snr needs validate: without it no output is compared")

    def allowed_drop(self, original: float) -> float:
        """Return ``max_drop`` in the metric's unit, given the original's value.

        Raises:
            OptionError: ``max_drop`` is no number, or below 0.
        """
        text = str(self.max_drop)
        try:
            number = float(text.removesuffix("%"))
        except ValueError:
            number = nan
        if not 0 <= number < inf:
            raise OptionError(f"max_drop = {text!r}: give a number from 0, or per cent as in 1%")
        return number / 100 * abs(original) if text.endswith("%") else number


class Limits(Options):
    """What a finished model must hold besides its accuracy: size and latency."""

    name: ClassVar[str] = "limits"

    min_size_ratio: Annotated[
        float | None,
        Field(gt=0, allow_inf_nan=False, description="Least original bytes / result bytes."),
    ] = None
    max_latency_ratio: Annotated[
        float | None,
        Field(
            gt=0,
            allow_inf_nan=False,
            description="Most time of a run / that of the original; missed if the whole interval "
            "of the measurement is above it.",
        ),
    ] = None
