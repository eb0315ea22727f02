"""Grids of codes: how far apart they lie, where zero is, and rounding to them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import ml_dtypes
import numpy as np

from onnxcomp.runtime.dtypes import is_float

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
        inference", 2018). Floats are symmetric too, and their largest finite value is the end
        (Micikevicius et al., "FP8 formats for deep learning", 2022).

        Args:
            low: The least value.
            high: The greatest value.
            dtype: The codes' type.
            power_of_two: Whether the scale is rounded up to one.
        """
        low, high = min(low, 0.0), max(high, 0.0)
        is_signed, most = _is_signed(dtype), largest(dtype)
        scale = max(-low, high) / most if is_signed else (high - low) / most
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
    def dtype(self) -> np.dtype[Any]:
        """The codes' type."""
        return self.zero_point.dtype

    @property
    def ends(self) -> tuple[float, float]:
        """The least and the greatest value."""
        most, zero, scale = largest(self.dtype), float(self.zero_point), float(self.scale)
        least = -most if _is_signed(self.dtype) else 0
        return (least - zero) * scale, (most - zero) * scale

    def rounded(self, values: Floats) -> Floats:
        """Return the nearest values of the grid."""
        scale = float(self.scale)
        scaled = np.clip(values, *self.ends) / scale
        nearest = nearest_floats(scaled, self.dtype) if is_float(self.dtype) else np.rint(scaled)
        result: Floats = nearest * scale
        return result


def largest(dtype: np.dtype[Any]) -> float:
    """Return the largest finite value of a type of codes."""
    return float(ml_dtypes.finfo(dtype).max if is_float(dtype) else np.iinfo(dtype).max)


def nearest_floats(scaled: NDArray[Any], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Return the nearest finite values of a type of floats, as QuantizeLinear saturates them."""
    most = largest(dtype)
    nearest: NDArray[Any] = np.clip(scaled, -most, most).astype(dtype).astype(scaled.dtype)
    return nearest


def _is_signed(dtype: np.dtype[Any]) -> bool:
    return is_float(dtype) or np.iinfo(dtype).min < 0
