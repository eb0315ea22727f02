"""What a store costs: the operators that decode it, and what it shares with others."""

from __future__ import annotations

from abc import ABC, abstractmethod
from functools import cached_property
from typing import TYPE_CHECKING

from onnxcomp.stores import expression as ex

if TYPE_CHECKING:
    from collections.abc import Collection


class Decoding(ABC):
    """A store, seen as the expression that decodes it."""

    @abstractmethod
    def expression(self) -> ex.Expression:
        """Return the operators that decode it, and their constants."""

    @cached_property
    def nbytes(self) -> int:
        """Bytes that the store adds to a file, its operators included, without `tables`."""
        return ex.count_bytes(self.expression())

    @cached_property
    def tables(self) -> dict[tuple[object, ...], int]:
        """Bytes, by content, of what the decoding shares with those of other weights."""
        return ex.shared_bytes(self.expression())

    def added_bytes(self, present: Collection[tuple[object, ...]]) -> int:
        """Bytes that the store adds to a file that has some of `tables` already."""
        missing = (size for table, size in self.tables.items() if table not in present)
        return self.nbytes + sum(missing)
