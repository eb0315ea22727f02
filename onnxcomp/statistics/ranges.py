"""The range of an activation: extremes, per channel too, and a histogram that needs no bounds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from onnxcomp.graph.operators import CONVOLUTIONS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Self

    import onnx_graphsurgeon as gs
    from numpy.typing import NDArray

    from onnxcomp.statistics.layers import Use
    from onnxcomp.statistics.streaming import Place, Sample

    Floats = NDArray[np.float64]

KEY_SHIFT = 16
"""Low bits of a float32 that do not count for its bin: sign, exponent and 7 bits remain."""

BIN_COUNT = 1 << (32 - KEY_SHIFT)
PIECE = 1 << 20


@dataclass(frozen=True)
class RangeWatch:
    """Watches the values of one tensor.

    Args:
        name: The tensor's name.
        place: The tensor, and the scope that computes it.
        range: What is summed up.
    """

    name: str
    place: Place
    range: Range

    @classmethod
    def of(cls, tensor: gs.Tensor, use: Use) -> Self:
        """Return what watches a tensor that a use reads or gives."""
        channels = 1 if use.node.op in CONVOLUTIONS else -1
        return cls(str(tensor.name), (tensor, use.scope), Range(channels))

    def places(self, side: int) -> list[Place]:
        """Return the tensor."""
        del side
        return [self.place]

    def take(self, sample: Sample, sides: Sequence[Sequence[NDArray[Any]]]) -> None:
        """Take in the tensor of a sample."""
        del sample
        self.range.add(sides[0][0])


class Range:
    """What values an activation takes, summed up in a stream.

    Bins are the values that share sign, exponent and the first 7 bits of the mantissa (relative
    width 2**-7), so that no bounds have to be known and two halves merge exactly.

    Args:
        channel_axis: The axis of the channels.

    Attributes:
        least: The smallest value seen.
        most: The largest value seen.
        channels: Largest magnitude of each channel, shape (channels,); empty before the first.
    """

    def __init__(self, channel_axis: int = -1) -> None:
        self.channel_axis = channel_axis
        self.least = np.inf
        self.most = -np.inf
        self.channels: Floats = np.empty(0)
        self._counts = np.zeros(BIN_COUNT, np.int64)

    def add(self, array: NDArray[Any]) -> None:
        """Take in an activation of any shape; what is not finite does not count."""
        values = array.astype(np.float32, copy=False)
        finite = np.isfinite(values)
        flat = values[finite]
        if not flat.size:
            return
        self.least = min(self.least, float(flat.min()))
        self.most = max(self.most, float(flat.max()))
        axis = self.channel_axis if values.ndim > 1 else -1
        largest = np.moveaxis(np.where(finite, np.abs(values), np.float32(0)), axis, 0)
        largest = largest.reshape(len(largest), -1).max(axis=1)
        self._absorb(largest.astype(np.float64))
        for start in range(0, flat.size, PIECE):
            keys = flat[start : start + PIECE].view(np.uint32) >> KEY_SHIFT
            self._counts += np.bincount(keys, minlength=BIN_COUNT)

    def merge(self, other: Self) -> None:
        """Take in all that another has seen."""
        self.least, self.most = min(self.least, other.least), max(self.most, other.most)
        self._absorb(other.channels)
        self._counts += other._counts

    @property
    def count(self) -> int:
        """How many values were seen."""
        return int(self._counts.sum())

    def points(self) -> tuple[Floats, NDArray[np.int64]]:
        """Return the middles of the bins that are not empty, ascending, and their counts."""
        filled = np.flatnonzero(self._counts)
        edges = filled.astype(np.uint32) << KEY_SHIFT
        patterns = (edges | (1 << (KEY_SHIFT - 1))).astype(np.uint32)
        # Zero has a bin of its own but for magnitudes that are nothing beside any other.
        middles: Floats = np.where(edges << 1 == 0, 0.0, patterns.view(np.float32))
        order = np.argsort(middles, kind="stable")
        return middles[order].astype(np.float64), self._counts[filled[order]]

    def percentile(self, share: float) -> float:
        """Return the value below which a share of all lies, in per cent, to within 0.8 %.

        Raises:
            ValueError: Nothing was seen.
        """
        values, counts = self.points()
        if not len(values):
            raise ValueError("no value was observed")
        wanted = share / 100 * counts.sum()
        place = int(np.searchsorted(np.cumsum(counts), wanted))
        return float(np.clip(values[min(place, len(values) - 1)], self.least, self.most))

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return all of it as arrays, for a file."""
        filled = np.flatnonzero(self._counts)
        return {
            "extremes": np.array([self.least, self.most]),
            "axis": np.array(self.channel_axis),
            "channels": self.channels,
            "bins": filled,
            "counts": self._counts[filled],
        }

    @classmethod
    def of_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> Self:
        """Return what `arrays` gave."""
        made = cls(int(arrays["axis"]))
        made.least, made.most = (float(each) for each in arrays["extremes"])
        made.channels = arrays["channels"]
        made._counts[arrays["bins"]] = arrays["counts"]
        return made

    def _absorb(self, channels: Floats) -> None:
        if len(channels) > len(self.channels):
            self.channels = np.pad(self.channels, (0, len(channels) - len(self.channels)))
        self.channels[: len(channels)] = np.maximum(self.channels[: len(channels)], channels)
