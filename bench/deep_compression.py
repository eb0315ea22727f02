"""How small do pruning and clustering make the networks of Deep Compression, without retraining?

    python models/train_lenets.py all --output FOLDER
    python bench/deep_compression.py --models FOLDER [--only lenet_5] [--most-drop 0.005]
        [--json OUT.json]

For each of LeNet-300-100 and LeNet-5 (Han et al., "Deep compression", 2016), trained on
Fashion-MNIST without any regard to zeros: the smallest file that loses at most so much accuracy,
of shares of zeros and bits that are tried. The accuracy that decides is that on training images
which nothing was calibrated on, with the standard error of the drop added to it, since the
smallest of many is picked; the one that is reported is on all 10,000 test images. The size ratio
is that of plain .onnx files; beside it is that after zstd.
"""

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from onnxcomp import Settings, compress
from onnxcomp.passes import Cluster, Prune
from onnxcomp.runtime import open_session

GOALS = {"lenet_300_100": 12.0, "lenet_5": 15.0}
SHARES = (0.7, 0.75, 0.8, 0.85, 0.9, 0.925, 0.95)
BITS = (3, 4, 5)

Row = dict[str, Any]


def is_right(model: Path, images: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return of each image whether its greatest logit is its label, as 0 or 1."""
    session = open_session(model, threads=1)
    right = []
    for start in range(0, len(images), 500):
        pixels = images[start : start + 500].astype(np.float32) / 255
        logits = session.run({"image": pixels})["logits"]
        right.append(logits.argmax(axis=1) == labels[start : start + 500])
    return np.concatenate(right).astype(float)


def results(model: Path, share: float, folder: Path) -> Iterator[tuple[Path, Row]]:
    """Prune once, and cluster that to each number of bits; give files and their sizes."""
    data, settings = model.with_name("lenet_calibration.npz"), Settings(bench=False, threads=1)
    pruned = compress(model, [Prune(sparsity=share, steps=4)], data=data, settings=settings)
    source = pruned.report.source
    for bits in BITS:
        path = folder / f"{model.stem}-{share:g}-{bits}.onnx"
        done = compress(pruned.model, [Cluster(bits=bits)], data=data, settings=settings)
        output = done.save(path).output
        yield (
            path,
            {
                "model": model.stem,
                "zeros": share,
                "bits": bits,
                "bytes": output.bytes,
                "size_ratio": source.bytes / output.bytes,
                "zstd_ratio": source.zstd_bytes / output.zstd_bytes,
            },
        )


def rows(folder: Path, names: Sequence[str], most_drop: float, made: Path) -> list[Row]:
    """Return what was tried of networks, and what accuracy that keeps."""
    with np.load(folder / "lenet_test.npz") as held, np.load(folder / "lenet_chosen.npz") as seen:
        test, chosen = ((each["image"], each["label"]) for each in (held, seen))
    done: list[Row] = []
    for name in names:
        model = folder / f"{name}.onnx"
        before = is_right(model, *chosen), is_right(model, *test)
        for share in SHARES:
            tried = []
            for path, row in results(model, share, made):
                lost = before[0] - is_right(path, *chosen)
                row["drop_chosen"] = float(lost.mean())
                row["error"] = float(lost.std() / np.sqrt(len(lost)))
                row["accuracy"] = float(is_right(path, *test).mean())
                row["drop"] = float(before[1].mean() - row["accuracy"])
                tried.append(row)
                print(*row.values(), file=sys.stderr, flush=True)
            done += tried
            # More zeros do not lose less.
            if min(row["drop_chosen"] for row in tried) > 2 * most_drop:
                break
    return done


def is_kept(row: Row, most_drop: float) -> bool:
    """Tell whether the drop on images to choose by is small enough, chance included."""
    return bool(row["drop_chosen"] + row["error"] <= most_drop)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--models", type=Path, required=True)
    parser.add_argument("--only", choices=list(GOALS), action="append")
    parser.add_argument("--most-drop", type=float, default=0.005)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    names = arguments.only or list(GOALS)
    with TemporaryDirectory() as folder:
        done = rows(arguments.models, names, arguments.most_drop, Path(folder))
    if arguments.json:
        arguments.json.write_text(json.dumps(done, indent=2))
    table = Table(*done[0], title="the smallest that keeps the accuracy on images for choosing")
    is_small = True
    for name in names:
        kept = [r for r in done if r["model"] == name and is_kept(r, arguments.most_drop)]
        best = max(kept, key=lambda row: row["size_ratio"], default=None)
        is_small &= best is not None and best["size_ratio"] >= GOALS[name]
        if best is not None:
            table.add_row(*(f"{v:.4g}" if isinstance(v, float) else str(v) for v in best.values()))
    Console(width=160).print(table)
    return int(not is_small)


if __name__ == "__main__":
    sys.exit(main())
