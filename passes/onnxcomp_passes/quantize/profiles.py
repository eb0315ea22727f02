"""What pays where: which operators a provider computes with integers, as data.

What ONNX Runtime's CPU provider fuses was measured, operator by operator, with release 1.31 on an
x86-64 processor with VNNI; the other profiles follow their vendors' documentation. Where floats of
8 bits go follows NVIDIA Model Optimizer: it rounds what Conv, Gemm and MatMul read, and neither
what they give nor their biases.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True)
class Profile:
    """What a provider computes with integers faster than with floats.

    Args:
        layers: Operators with weights.
        islands: Operators that compute with integers between two that do.
        carrying: Operators that pass integers on as they are.
        gives_integers: Of ``layers``, those that have to give integers too.
        integer_bias: Of ``layers``, those whose bias has to be of integers.
        least_inputs: Fewest inputs of an output, for a layer to gain.
        least_of_pictures: The same for a convolution of fewer than four channels, for which there
            is a float kernel of its own; only between others that give and take integers.
        least_outputs: Fewest outputs.
        least_elements: Fewest elements of a weight: rounding what it is multiplied with takes some
            hundred bytes, and time.
        groups: Whether convolutions of several groups gain.
        depthwise: Whether depthwise convolutions gain by themselves, and not only as islands.
        gates: Operators of which one operand is rounded for the sake of the other, which is given
            as integers.
        dynamic: Operators that a provider computes with integers whose range it finds as it runs.
        blocks: Whether it computes MatMul on blocks of 4- and 8-bit weights.
        activations: The element types of activations that it fuses, the fastest first.
        largest_code: Of weights; 64 where two products are added in 16 bits, which must not
            overflow (AVX2 without VNNI).
        least_channels: Fewest channels that a convolution may read and give in a group.
        most_taps: Most places that its kernel may cover.
        float8: What it does where activations are floats of 8 bits; None for nothing.
    """

    layers: frozenset[str]
    islands: frozenset[str] = frozenset({"Add", "Concat"})
    carrying: frozenset[str] = frozenset(
        {"Flatten", "MaxPool", "Reshape", "Squeeze", "Transpose", "Unsqueeze"}
    )
    gives_integers: frozenset[str] = frozenset({"Conv"})
    integer_bias: frozenset[str] = frozenset({"Conv", "Gemm"})
    least_inputs: int = 16
    least_of_pictures: int = 64
    least_outputs: int = 8
    least_elements: int = 1024
    groups: bool = False
    depthwise: bool = False
    gates: frozenset[str] = frozenset()
    dynamic: frozenset[str] = frozenset()
    blocks: bool = False
    activations: tuple[str, ...] = ("uint8", "int8")
    largest_code: int = 127
    least_channels: int = 1
    most_taps: int = 1 << 30
    float8: Profile | None = None

    @property
    def types(self) -> tuple[str, ...]:
        """The element types of activations, those of 8-bit floats included."""
        return self.activations + (self.float8.activations if self.float8 is not None else ())

    def computing(self, kind: str) -> Profile:
        """Return what it does where activations are of a type, which may be ``auto``."""
        if self.float8 is not None and kind in self.float8.activations:
            return self.float8
        return self

    @property
    def widened(self) -> Profile:
        """The same with what pays on some models only, because fewer floats are made between."""
        return replace(self, depthwise=True, gates=frozenset({"Mul"}))


OF_FLOAT8 = Profile(
    frozenset({"Conv", "Gemm", "MatMul"}),
    islands=frozenset(),
    carrying=frozenset(),
    gives_integers=frozenset(),
    integer_bias=frozenset(),
    least_of_pictures=1,
    groups=True,
    activations=("float8e4m3fn", "float8e5m2"),
)
"""Where floats of 8 bits are computed with."""

PROFILES: Mapping[str, Profile] = {
    "cpu": Profile(
        frozenset({"Conv", "Gemm", "MatMul"}), dynamic=frozenset({"Gemm", "MatMul"}), blocks=True
    ),
    "avx2": Profile(
        frozenset({"Conv", "Gemm", "MatMul"}),
        dynamic=frozenset({"Gemm", "MatMul"}),
        blocks=True,
        largest_code=64,
    ),
    "openvino": Profile(
        frozenset({"Conv", "Gemm", "MatMul", "ConvTranspose"}),
        islands=frozenset({"Add", "Concat", "AveragePool", "GlobalAveragePool"}),
        gives_integers=frozenset(),
        integer_bias=frozenset(),
        least_inputs=1,
        least_of_pictures=1,
        least_outputs=1,
        groups=True,
        activations=("uint8", "int8", "uint16", "int16"),
    ),
    "tensorrt": Profile(
        frozenset({"Conv", "Gemm", "MatMul", "ConvTranspose"}),
        gives_integers=frozenset(),
        integer_bias=frozenset(),
        least_of_pictures=1,
        groups=True,
        activations=("int8",),
        # It has kernels for E4M3 alone, and not for convolutions of few channels or large kernels.
        float8=replace(OF_FLOAT8, activations=("float8e4m3fn",), least_channels=16, most_taps=32),
    ),
    "cuda": Profile(
        frozenset({"Conv", "Gemm", "MatMul"}),
        gives_integers=frozenset(),
        integer_bias=frozenset(),
        least_of_pictures=1,
        groups=True,
        activations=("int8", "uint8"),
        # It has QuantizeLinear and DequantizeLinear of both.
        float8=OF_FLOAT8,
    ),
    "generic": Profile(
        frozenset({"Conv", "Gemm", "MatMul"}),
        least_inputs=1,
        least_of_pictures=1,
        least_outputs=1,
        groups=True,
        activations=("uint8", "int8", "uint16", "int16"),
        float8=replace(OF_FLOAT8, least_inputs=1, least_outputs=1),
    ),
}
