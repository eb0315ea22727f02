"""How much of what could agree does, counted sample by sample."""

import numpy as np

from onnxcomp.intervals import mean_interval, unseen_share
from onnxcomp.runtime.values import Array


class Agreement:
    """Counts of what could agree and what does, two for each sample."""

    def __init__(self) -> None:
        self._counts: list[Array] = []

    def add(self, agree: Array, samples: int) -> None:
        """Count what agrees.

        Args:
            agree: Whether each row or element does, those of one sample after those of another.
            samples: How many samples they are of.
        """
        if not agree.size:
            return
        each = agree.reshape(samples, -1)
        possible = np.full(samples, each.shape[1])
        self._counts.append(np.stack([possible, each.sum(axis=1)], axis=1))

    def miss(self, possible: int) -> None:
        """Count as many as could have agreed, had the shapes."""
        self._counts.append(np.array([[possible, 0]]))

    def share(self) -> tuple[float, float, float] | None:
        """Return the share that agrees and the ends of its 95 % interval; None of nothing.

        Where all agrees, the interval is what so few samples leave open.
        """
        if not self._counts:
            return None
        possible, agreeing = np.concatenate(self._counts).T
        if not possible.any():
            return None
        if (agreeing == possible).all():
            return 1.0, 1 - unseen_share(len(possible)), 1.0
        low, high = mean_interval(agreeing / possible.mean())
        return float(agreeing.sum() / possible.sum()), min(1.0, low), min(1.0, high)
