"""What the weights of one run have in common."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from onnxcomp_passes.cluster.coding import Coding
    from onnxcomp_passes.cluster.curves import Choice


@dataclass(frozen=True)
class Coded:
    """What a weight was coded to without data.

    Args:
        choice: How it was to be; None where that was not chosen for it alone.
        coding: The coding.
        how: What was done, for the verdict.
    """

    choice: Choice | None
    coding: Coding
    how: str


@dataclass
class Run:
    """What the weights of one run have in common.

    Attributes:
        seed: What all randomness comes from.
        common: The codebook that all share, where they do.
        chosen: Codings chosen for single weights, by the identity of their constants.
        coded: What weights were coded to, by the identity of their constants.
        tables: What decodings share, and the file has by now; a function has its own.
    """

    seed: int
    common: NDArray[np.float64] | None = None
    chosen: dict[int, Choice] = field(default_factory=dict)
    coded: dict[int, Coded] = field(default_factory=dict)
    tables: defaultdict[str, set[tuple[object, ...]]] = field(
        default_factory=lambda: defaultdict(set)
    )
