"""Inputs and outputs that are integers in the file and floats to whoever runs it here.

A model whose interface was made of integers says in its metadata what they stand for. Sessions
round what they are fed and decode what they give, so that it is compared as the floats it means.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from onnxcomp.runtime.dtypes import DType
from onnxcomp.runtime.values import Array

INTERFACE = "onnxcomp.interface"
"""The key of the metadata."""


@dataclass(frozen=True)
class PortCodes:
    """What the integers of an input or output stand for: ``scale * (code - zero_point)``.

    Attributes:
        dtype: Their element type.
        scale: Distance of two values.
        zero_point: What stands for zero.
    """

    dtype: DType
    scale: float
    zero_point: int

    def encode(self, values: Array) -> Array:
        """Round floats to codes, as QuantizeLinear does; leave codes alone."""
        if values.dtype == self.dtype:
            return values
        info = np.iinfo(self.dtype)
        steps = np.rint(values.astype(np.float32) / np.float32(self.scale)) + self.zero_point
        codes: Array = np.clip(steps, info.min, info.max).astype(self.dtype)
        return codes

    def decode(self, codes: Array) -> Array:
        """Return what codes stand for, as float32."""
        centred = codes.astype(np.float32) - np.float32(self.zero_point)
        values: Array = centred * np.float32(self.scale)
        return values


def write_codes(ports: Mapping[str, PortCodes]) -> str:
    """Return the text that metadata keep of ports, by name."""
    return json.dumps(
        {
            name: {"type": each.dtype.name, "scale": each.scale, "zero_point": each.zero_point}
            for name, each in ports.items()
        }
    )


def read_codes(metadata: Mapping[str, str]) -> dict[str, PortCodes]:
    """Return what metadata say of ports, by name; nothing where that is not what we write."""
    try:
        entries = json.loads(metadata.get(INTERFACE, "{}")).items()
        return {
            name: PortCodes(np.dtype(each["type"]), float(each["scale"]), int(each["zero_point"]))
            for name, each in entries
        }
    except (ValueError, TypeError, KeyError, AttributeError):
        return {}
