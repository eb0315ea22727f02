"""How much each weight alone costs the outputs when a pass changes it: as data and as a table."""

from __future__ import annotations

from math import inf, isfinite, prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field, computed_field, field_serializer
from rich.console import Group
from rich.table import Table
from rich.text import Text

from onnxcomp.report.frozen import Record
from onnxcomp.report.tables import size
from onnxcomp.runtime.comparison import OutputComparison, worst_snr_db

if TYPE_CHECKING:
    from rich.console import RenderableType

ROWS = 20
"""Weights that are shown unless another number is asked for."""


class Treatment(Record):
    """What it costs and brings to apply a pass, to one weight or to all.

    Attributes:
        bytes_before: Bytes in the file of the tensors that the pass changed.
        bytes_after: Bytes that they take now; a table that changed weights share counts for each
            where each is changed alone.
        outputs: One comparison for each output of the original; none where the result fails.
        failure: Why the result does not load or run, in one line; None where it does.
        snr_db: The lowest SNR of the float outputs, in dB: infinite where they are equal, minus
            infinite where the result fails, is not finite or has another shape. Either is null in
            JSON, where ``squared_error`` tells them apart.
        squared_error: The largest relative squared error of the float outputs, without unit;
            infinite (null in JSON) where ``snr_db`` is minus infinite.
    """

    bytes_before: int
    bytes_after: int
    outputs: tuple[OutputComparison, ...]
    failure: str | None = None

    @computed_field  # type: ignore[prop-decorator]
    @property
    def bytes_saved(self) -> int:
        """Bytes by which the tensors shrink."""
        return self.bytes_before - self.bytes_after

    @computed_field  # type: ignore[prop-decorator]
    @property
    def snr_db(self) -> float:
        """The lowest SNR of the float outputs, in dB."""
        worst = worst_snr_db(self.outputs)
        return -inf if worst is None else worst

    @computed_field  # type: ignore[prop-decorator]
    @property
    def squared_error(self) -> float:
        """The largest relative squared error of the float outputs, without unit."""
        return max(
            (
                output.squared_error
                for output in self.outputs
                if output.squared_error is not None and "float" in output.dtype
            ),
            default=inf,
        )

    @field_serializer("snr_db", "squared_error", when_used="json")
    def _finite_or_null(self, value: float) -> float | None:
        return value if isfinite(value) else None


class RankedWeight(Treatment):
    """One weight, when the pass changes it and no other.

    Attributes:
        rank: 1 for the one whose change costs the outputs most.
        name: The tensor's name.
        op_types: Operators that read it.
        shape: Its shape.
        share: Its part of the bytes of all weights of the model, in [0, 1].
        reason: How the pass changed it, or why it did not where it is the only one.
        weight_error: Relative Frobenius error of its values, without unit, as the pass tells it.
    """

    rank: int
    name: str
    op_types: tuple[str, ...]
    shape: tuple[int, ...]
    share: float
    reason: str
    weight_error: float | None

    @computed_field  # type: ignore[prop-decorator]
    @property
    def elements(self) -> int:
        """How many elements it has."""
        return prod(self.shape)


class Sensitivity(Record):
    """Weights ranked by what a pass costs the outputs when it changes each of them alone.

    Attributes:
        version: Of onnxcomp.
        source: Path of the model; None for one that came from memory.
        name: The pass; ``pass`` in JSON.
        options: All its options.
        provider: Execution provider that results were run on.
        samples: Held-out samples that results were run on.
        weights: Those that the pass changes, the worst first.
        together: The pass applied to all of them at once.
    """

    version: str
    source: str | None
    name: str = Field(alias="pass")
    options: dict[str, Any]
    provider: str
    samples: int
    weights: tuple[RankedWeight, ...]
    together: Treatment

    @computed_field  # type: ignore[prop-decorator]
    @property
    def sum_of_errors(self) -> float:
        """Relative squared errors of the weights added up, to hold against those together."""
        return sum(each.squared_error for each in self.weights)

    @field_serializer("sum_of_errors", when_used="json")
    def _finite_or_null(self, value: float) -> float | None:
        return value if isfinite(value) else None

    @property
    def title(self) -> str:
        """What was ranked, by what."""
        source = "the model" if self.source is None else Path(self.source).name
        return f"sensitivity of {source} to {self.name}"


def sensitivity_table(found: Sensitivity, top: int = ROWS) -> RenderableType:
    """Return the worst weights as a table, and below them all weights together.

    Args:
        found: The ranking.
        top: Most rows.
    """
    table = Table("rank", "weight", "operators", "shape", title=found.title)
    for name in ("elements", "share", "squared error", "SNR dB", "bytes saved"):
        table.add_column(name, justify="right")
    for each in found.weights[:top]:
        table.add_row(
            str(each.rank),
            Text(each.name, overflow="fold"),
            Text(", ".join(each.op_types)),
            "x".join(map(str, each.shape)),
            str(each.elements),
            f"{each.share:.1%}",
            f"{each.squared_error:.3g}",
            snr_text(each),
            size(each.bytes_saved),
        )
    table.add_section()
    together = found.together
    table.add_row("", "sum of errors", *[""] * 4, f"{found.sum_of_errors:.3g}")
    table.add_row(
        "",
        "all together",
        *[""] * 4,
        f"{together.squared_error:.3g}",
        snr_text(together),
        size(together.bytes_saved),
    )
    failures = [
        Text(f"{each.name}: {each.failure}", style="red")
        for each in found.weights[:top]
        if each.failure is not None
    ]
    if together.failure is not None:
        failures.append(Text(f"all together: {together.failure}", style="red"))
    return Group(table, *failures, Text(_footnote(found, top)))


def snr_text(treatment: Treatment) -> str:
    """Return an SNR as people read it, without the unit."""
    if treatment.failure is not None:
        return "fails"
    if not treatment.squared_error:
        return "identical"
    return f"{treatment.snr_db:.1f}" if isfinite(treatment.snr_db) else "not finite"


def _footnote(found: Sensitivity, top: int) -> str:
    count = len(found.weights)
    which = f"{top} of {count}" if top < count else str(count)
    noun = "weight" if count == 1 else "weights"
    return f"{which} {noun}, each changed alone; {found.samples} samples on {found.provider}"
