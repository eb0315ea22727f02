"""Codes as bytes: as many digits of a small base in each byte as fit, lowest digit first.

For the bases 2, 4 and 16 this is also how ONNX packs its UINT2 and UINT4 tensors, so that one
payload serves both forms.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

BYTE = 256


def digits_per_byte(base: int) -> int:
    """How many digits of ``base`` (2 to 256) one byte holds."""
    digits = 1
    while base ** (digits + 1) <= BYTE:
        digits += 1
    return digits


def digit_table(base: int) -> NDArray[np.uint8]:
    """The digits of every byte: shape (256, `digits_per_byte`); impossible bytes give digit 0."""
    powers = base ** np.arange(digits_per_byte(base))
    digits = np.arange(BYTE)[:, None] // powers % base
    digits[base ** len(powers) :] = 0
    return digits.astype(np.uint8)


def pack(codes: NDArray[np.uint8], base: int) -> NDArray[np.uint8]:
    """Pack codes below ``base``, shape (n,), into ceil(n / `digits_per_byte`) bytes."""
    digits = digits_per_byte(base)
    if digits == 1:
        return codes
    padded = np.concatenate([codes, np.zeros(-len(codes) % digits, np.uint8)])
    packed = padded[0::digits].copy()
    for place in range(1, digits):
        packed += padded[place::digits] * np.uint8(base**place)
    return packed


def unpack(packed: NDArray[np.uint8], base: int, count: int) -> NDArray[np.uint8]:
    """Return the ``count`` codes that `pack` made into ``packed``."""
    if digits_per_byte(base) == 1:
        return packed[:count]
    return digit_table(base)[packed].reshape(-1)[:count]


def plane_bases(clusters: int) -> tuple[int, ...]:
    """The bases of bit planes that hold codes below ``clusters`` without waste, low bits first.

    Example:
        Six bits are a plane of four and one of two: ``plane_bases(64) == (16, 4)``.
    """
    bits = max(1, (clusters - 1).bit_length())
    return tuple(1 << width for width in (8, 4, 2, 1) if bits & width)


def split_planes(
    codes: NDArray[np.uint8], bases: tuple[int, ...]
) -> tuple[NDArray[np.uint8], ...]:
    """Pack each plane; a code is the sum of its planes times the product of the lower bases."""
    planes = []
    for base in bases[:-1]:
        planes.append(pack(codes % base, base))
        codes = codes // base
    return (*planes, pack(codes, bases[-1]))


def join_planes(
    planes: tuple[NDArray[np.uint8], ...], bases: tuple[int, ...], count: int
) -> NDArray[np.uint8]:
    """Return the codes that `split_planes` made into ``planes``."""
    codes = unpack(planes[0], bases[0], count).copy()
    place = bases[0]
    for plane, base in zip(planes[1:], bases[1:], strict=True):
        codes += unpack(plane, base, count) * np.uint8(place)
        place *= base
    return codes
