"""Grids of integers: how far apart they lie, where zero is, and rounding to them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

SMALLEST_SCALE = 2.0**-100
"""The scale of what is always zero, whose codes are zero whatever it is."""


@dataclass(frozen=True, eq=False)
class ActivationGrid:
    """What values a rounded tensor can take: ``scale * (code - zero_point)``.

    Args:
        scale: float32, shape ().
        zero_point: Of the codes' type, shape ().
    """

    scale: NDArray[np.float32]
    zero_point: NDArray[Any]

    @classmethod
    def between(
        cls, low: float, high: float, dtype: np.dtype[Any], *, power_of_two: bool = False
    ) -> ActivationGrid:
        """Return the grid whose ends are about ``low`` and ``high``; zero is on it.

        Signed types are symmetric around zero; in unsigned ones zero lies where it fits (Jacob et
        al., "Quantization and training of neural networks for efficient integer-arithmetic-only
        inference", 2018).

        Args:
            low: The least value.
            high: The greatest value.
            dtype: The codes' type.
            power_of_two: Whether the scale is rounded up to one.
        """
        info = np.iinfo(dtype)
        low, high = min(low, 0.0), max(high, 0.0)
        is_signed = info.min < 0
        scale = max(-low, high) / info.max if is_signed else (high - low) / info.max
        if power_of_two and scale > 0:
            scale = float(2.0 ** np.ceil(np.log2(scale)))
        scale = max(scale, SMALLEST_SCALE)
        zero = 0 if is_signed else round(-low / scale)
        # A scale that float32 rounds up would let the last code pass the end of a Clip.
        single = np.float32(scale)
        if float(single) > scale:
            single = np.nextafter(single, np.float32(0))
        return cls(np.array(single), np.array(zero, dtype))

    @property
    def ends(self) -> tuple[float, float]:
        """The least and the greatest value."""
        info = np.iinfo(self.zero_point.dtype)
        zero, scale = int(self.zero_point), float(self.scale)
        least = -info.max if info.min < 0 else 0
        return (least - zero) * scale, (info.max - zero) * scale

    def rounded(self, values: Floats) -> Floats:
        """Return the nearest values of the grid."""
        scale = float(self.scale)
        result: Floats = np.rint(np.clip(values, *self.ends) / scale) * scale
        return result
