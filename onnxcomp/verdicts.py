"""What became of each weight, and why."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict


class Verdict(BaseModel):
    """What a pass did with one weight-like tensor.

    Attributes:
        name: The tensor's name.
        op_types: Operators that read it.
        shape: Its shape.
        verdict: Whether it was changed.
        reason: How it was changed, or why not.
        bytes_before: Bytes that it took in the file.
        bytes_after: Bytes that it takes now, the operators that decode it included.
        error: Relative Frobenius error of its values, without unit; None where it was skipped.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    name: str
    op_types: tuple[str, ...]
    shape: tuple[int, ...]
    verdict: Literal["changed", "skipped"]
    reason: str
    bytes_before: int
    bytes_after: int
    error: float | None = None
