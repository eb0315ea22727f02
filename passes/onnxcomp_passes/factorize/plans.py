"""Which layer becomes what: as it was decided, and as a user or a recipe writes it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from onnxcomp.errors import OptionError
from onnxcomp_passes.factorize.kinds import KINDS, Choice

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from onnxcomp.statistics import Layer
    from onnxcomp_passes.factorize.sites import Site

    Subject = tuple[Site, Layer]


@dataclass(frozen=True)
class Plan:
    """What layers become, and why others stay, by the identity of the weight's constant.

    Args:
        choices: What they become.
        refused: Why they stay.
        is_measured: Whether something was measured to find it.
    """

    choices: dict[int, Choice]
    refused: dict[int, str]
    is_measured: bool

    def skipped(self, subjects: Sequence[Subject]) -> Iterator[tuple[int, Site]]:
        """Yield the layers that stay."""
        for site, _ in subjects:
            if id(site.weight.tensor) in self.refused:
                yield id(site.weight.tensor), site


def parse_plan(entries: Sequence[str], name: str) -> list[tuple[str, Choice]]:
    """Read what a user or a recipe says that layers become.

    Args:
        entries: Each GLOB=KIND:RANK.
        name: The pass, for messages.

    Raises:
        OptionError: An entry is none.
    """
    found = []
    for entry in entries:
        glob, _, how = entry.rpartition("=")
        kind, _, rank = how.partition(":")
        if not glob or kind not in KINDS or not rank.isdecimal() or int(rank) < 1:
            raise OptionError(
                f"{name}: plan = {entry!r}: must be GLOB=KIND:RANK with KIND out of "
                f"{', '.join(KINDS)}"
            )
        found.append((glob, Choice(kind, int(rank))))
    return found
