"""Rankings as pictures; matplotlib is an extra, and is imported only here."""

from __future__ import annotations

from importlib.util import find_spec
from math import inf, isfinite
from typing import TYPE_CHECKING, Any

from onnxcomp.errors import ModelError, OptionError
from onnxcomp.graph.saving import replacing
from onnxcomp.report.sensitivities import ROWS, snr_text

if TYPE_CHECKING:
    from pathlib import Path

    from onnxcomp.report.sensitivities import RankedWeight, Sensitivity

SUFFIXES = (".png", ".svg")

LONGEST_LABEL = 48
"""Characters of a weight's name; the middle of a longer one is left out."""

WIDTH, HEIGHT_OF_FRAME, HEIGHT_OF_BAR = 9.0, 1.5, 0.3
"""Inches."""

DOTS_PER_INCH = 150

AXIS = "SNR of the outputs with this weight alone changed, in dB (less is worse)"

BAR, BROKEN, LINE = "#4477aa", "#cc3311", "#ee7733"
"""Colours that differ for colour-blind readers too (Paul Tol's)."""


def check_plot(path: Path) -> None:
    """Refuse a picture that cannot be made before hours of work, not after.

    Raises:
        OptionError: It is of another kind, or matplotlib is not installed.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise OptionError(f"plot {str(path)!r}: give a name that ends in {' or '.join(SUFFIXES)}")
    if find_spec("matplotlib") is None:
        raise OptionError(
            "a plot needs matplotlib, which is not installed; pip install onnxcomp[plot]"
        )


def save_sensitivity_plot(found: Sensitivity, path: Path, top: int = ROWS) -> None:
    """Draw the SNR that each weight alone leaves, the worst on top.

    Args:
        found: The ranking.
        path: A ``.png`` or an ``.svg``; the old file stays until it is whole.
        top: Most bars.

    Raises:
        ModelError: The folder cannot be written.
        OptionError: It is of another kind, or matplotlib is not installed.
    """
    check_plot(path)
    from matplotlib import rc_context  # noqa: PLC0415 - an extra, and slow to import

    kind = path.suffix.lower().removeprefix(".")
    # Without these an SVG has the time and random names in it.
    metadata = {"Date": None} if kind == "svg" else None
    with rc_context({"svg.hashsalt": "onnxcomp"}):
        figure = _drawn(found, found.weights[:top])
        try:
            with replacing(path) as file:
                figure.savefig(file, format=kind, dpi=DOTS_PER_INCH, metadata=metadata)
        except OSError as error:
            reason = (error.strerror or "cannot be written").lower()
            raise ModelError(f"cannot write {str(path)!r}: {reason}") from error


def _drawn(found: Sensitivity, shown: tuple[RankedWeight, ...]) -> Any:
    from matplotlib.figure import Figure  # noqa: PLC0415

    height = HEIGHT_OF_FRAME + HEIGHT_OF_BAR * len(shown)
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    axes = figure.subplots()
    places = range(len(shown))
    lengths = [each.snr_db if isfinite(each.snr_db) else 0.0 for each in shown]
    axes.barh(places, lengths, height=0.7, color=BAR)
    for place, each, length in zip(places, shown, lengths, strict=True):
        axes.annotate(
            snr_text(each),
            (max(length, 0.0), place),
            xytext=(4, 0),
            textcoords="offset points",
            va="center",
            fontsize="small",
            color=BROKEN if each.snr_db == -inf else "black",
        )
    together = found.together
    if isfinite(together.snr_db):
        label = f"all together: {together.snr_db:.1f} dB"
        axes.axvline(together.snr_db, color=LINE, linestyle="--", label=label)
        axes.legend(loc="lower right", bbox_to_anchor=(1, 1), frameon=False, fontsize="small")
    axes.set_yticks(places, [_label(each) for each in shown], fontsize="small", parse_math=False)
    axes.set_ylim(len(shown) - 0.5, -0.5)
    axes.margins(x=0.1)
    axes.axvline(0.0, color="black", linewidth=0.8)
    axes.spines[["top", "right"]].set_visible(False)
    # On the figure and not on the axes, which are narrow where names are long.
    figure.supxlabel(AXIS, fontsize="medium")
    figure.suptitle(_title(found, len(shown)), fontsize="medium", parse_math=False)
    return figure


def _label(weight: RankedWeight) -> str:
    name = weight.name
    if len(name) > LONGEST_LABEL:
        kept = LONGEST_LABEL // 2
        name = f"{name[:kept]}…{name[-kept:]}"
    return f"{name} ({', '.join(weight.op_types)} {'x'.join(map(str, weight.shape))})"


def _title(found: Sensitivity, shown: int) -> str:
    count = len(found.weights)
    return (
        found.title if shown == count else f"{found.title}: the worst {shown} of {count} weights"
    )
