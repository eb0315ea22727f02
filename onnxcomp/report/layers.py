"""What became of each weight over all steps of a run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from onnxcomp.report.records import Step
    from onnxcomp.verdicts import Verdict


@dataclass(frozen=True)
class Layer:
    """One weight-like tensor.

    Args:
        name: Its name.
        verdicts: The steps that saw it, in order, each as the pass's name and its verdict.
    """

    name: str
    verdicts: tuple[tuple[str, Verdict], ...]

    @property
    def changes(self) -> tuple[tuple[str, Verdict], ...]:
        """The steps that changed it."""
        return tuple(each for each in self.verdicts if each[1].verdict == "changed")

    @property
    def op_types(self) -> tuple[str, ...]:
        """Operators that read it when a step first saw it."""
        return self.verdicts[0][1].op_types

    @property
    def shape(self) -> tuple[int, ...]:
        """Its shape when a step first saw it."""
        return self.verdicts[0][1].shape

    @property
    def bytes_before(self) -> int:
        """Bytes in the file before the first step that saw it."""
        return self.verdicts[0][1].bytes_before

    @property
    def bytes_after(self) -> int:
        """Bytes in the file after the last step that changed it."""
        return (self.changes or self.verdicts)[-1][1].bytes_after

    @property
    def error(self) -> float:
        """The largest relative Frobenius error of a step, against what that step was given."""
        return max((each.error or 0.0 for _, each in self.changes), default=0.0)

    @property
    def reason(self) -> str:
        """What the last step that saw it had to say."""
        return self.verdicts[-1][1].reason


def layers(steps: Iterable[Step]) -> tuple[Layer, ...]:
    """Return the tensors that steps saw, the largest first, equal ones as the steps list them."""
    seen: dict[str, list[tuple[str, Verdict]]] = {}
    for step in steps:
        for each in step.tensors:
            seen.setdefault(each.name, []).append((step.name, each))
    found = (Layer(name, tuple(verdicts)) for name, verdicts in seen.items())
    return tuple(sorted(found, key=lambda layer: -layer.bytes_before))
