"""How small does a model get packed, and would another layout of its weights make it smaller?

    python bench/packing.py MODEL... [--json OUT.json]

Columns, in bytes: `file`; `packed` by `onnxcomp pack`; `digits`, if the two halves of every byte
of integer weights lay apart; `planes`, if the first bytes of all float32 numbers lay together,
then the second, and so on; `codes`, the integer weights; `entropy`, what these take if each byte
is coded by itself, as well as can be. Layouts are compressed like `packed`, without what it would
take to undo them.
"""

import argparse
import json
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnx
import zstandard
from rich.console import Console
from rich.table import Table

from onnxcomp import pack_model
from onnxcomp.graph.packing import LEVEL, WINDOW

LEAST = 64
"""Bytes of the smallest tensor that is laid out anew."""

COLUMNS = ("model", "file", "packed", "digits", "planes", "codes", "entropy")


def measure(path: Path) -> dict[str, str | int]:
    with TemporaryDirectory() as folder:
        packed = Path(folder, "packed.zst")
        pack_model(path, packed)
        size = packed.stat().st_size
    rest, floats, codes = parted(path)
    digits = np.concatenate([codes & 15, codes >> 4])
    planes = floats.reshape(-1, 4).T.ravel()
    counts = np.bincount(codes, minlength=256)
    shares = counts[counts > 0] / max(1, len(codes))
    row = (
        path.name,
        path.stat().st_size,
        size,
        compressed(rest + floats.tobytes() + digits.tobytes()),
        compressed(rest + planes.tobytes() + codes.tobytes()),
        len(codes),
        round(-(shares @ np.log2(shares)) * len(codes) / 8),
    )
    return dict(zip(COLUMNS, row, strict=True))


def parted(path: Path) -> tuple[bytes, np.ndarray, np.ndarray]:
    """Return the file without its larger tensors, and the bytes of these: float32, and others."""
    content = path.read_bytes()
    graph = onnx.load_from_string(content).graph
    attributes = (each for node in graph.node for each in node.attribute if each.HasField("t"))
    spans = {}
    for tensor in [*graph.initializer, *(each.t for each in attributes)]:
        if len(tensor.raw_data) >= LEAST:
            spans[content.find(tensor.raw_data)] = tensor
    rest, end = [], 0
    kept: tuple[list[bytes], list[bytes]] = ([], [])
    for start in sorted(spans):
        if start < end:
            continue
        rest.append(content[end:start])
        kept[spans[start].data_type != onnx.TensorProto.FLOAT].append(spans[start].raw_data)
        end = start + len(spans[start].raw_data)
    floats, codes = (np.frombuffer(b"".join(each), np.uint8) for each in kept)
    return b"".join([*rest, content[end:]]), floats, codes


def compressed(data: bytes) -> int:
    parameters = zstandard.ZstdCompressionParameters.from_level(
        LEVEL, window_log=WINDOW, enable_ldm=True
    )
    return len(zstandard.ZstdCompressor(compression_params=parameters).compress(data))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("models", type=Path, nargs="+")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    rows = [measure(path) for path in arguments.models]
    table = Table(*COLUMNS)
    for row in rows:
        table.add_row(*map(str, row.values()))
    Console(width=120).print(table)
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
