"""How small do pruning and clustering make the networks of Deep Compression, without retraining?

    python models/train_lenets.py all --output FOLDER
    python bench/deep_compression.py --models FOLDER [--most-drop 0.005] [--json OUT.json]

For each of LeNet-300-100 and LeNet-5 (Han et al., "Deep compression", 2016), trained on
Fashion-MNIST without any regard to zeros: the smallest file that loses at most so much accuracy,
of shares of zeros and bits that are tried. The accuracy that decides is that on training images
which nothing was calibrated on; the one that is reported is on all 10,000 test images. The size
ratio is that of plain .onnx files; beside it is that after zstd.
"""

import argparse
import json
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from onnxcomp import Settings, compress
from onnxcomp.runtime import open_session
from passes import Cluster, Prune

GOALS = {"lenet_300_100": 12.0, "lenet_5": 15.0}
SHARES = (0.7, 0.75, 0.8, 0.85, 0.9, 0.925, 0.95)
BITS = (3, 4, 5)

Row = dict[str, Any]


def accuracy(model: Path, images: np.ndarray, labels: np.ndarray) -> float:
    """Return the share of images whose greatest logit is their label."""
    session = open_session(model, threads=1)
    right = 0
    for start in range(0, len(images), 500):
        pixels = images[start : start + 500].astype(np.float32) / 255
        logits = session.run({"image": pixels})["logits"]
        right += int(np.sum(logits.argmax(axis=1) == labels[start : start + 500]))
    return right / len(images)


def measure(model: Path, share: float, bits: int, folder: Path) -> tuple[Path, Row]:
    """Prune and cluster once; return the file and its sizes."""
    path = folder / f"{model.stem}-{share:g}-{bits}.onnx"
    recipe = [Prune(sparsity=share, steps=4), Cluster(bits=bits)]
    data = model.with_name("lenet_calibration.npz")
    report = compress(model, recipe, data=data, settings=Settings(bench=False, threads=1)).save(
        path
    )
    return path, {
        "model": model.stem,
        "zeros": share,
        "bits": bits,
        "bytes": report.output.bytes,
        "size_ratio": report.size_ratio,
        "zstd_ratio": report.source.zstd_bytes / report.output.zstd_bytes,
    }


def rows(folder: Path, most_drop: float, results: Path) -> list[Row]:
    """Return what was tried of both networks, and whether it keeps the accuracy."""
    with np.load(folder / "lenet_test.npz") as held, np.load(folder / "lenet_chosen.npz") as seen:
        test, chosen = ((each["image"], each["label"]) for each in (held, seen))
    done = []
    for name in GOALS:
        model = folder / f"{name}.onnx"
        before = accuracy(model, *chosen), accuracy(model, *test)
        for bits in BITS:
            for share in SHARES:
                path, row = measure(model, share, bits, results)
                row["drop_chosen"] = before[0] - accuracy(path, *chosen)
                row["accuracy"] = accuracy(path, *test)
                row["drop"] = before[1] - row["accuracy"]
                done.append(row)
                print(*row.values(), file=sys.stderr, flush=True)
                # More zeros do not lose less.
                if row["drop_chosen"] > 2 * most_drop:
                    break
    return done


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--models", type=Path, required=True)
    parser.add_argument("--most-drop", type=float, default=0.005)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    with TemporaryDirectory() as folder:
        done = rows(arguments.models, arguments.most_drop, Path(folder))
    if arguments.json:
        arguments.json.write_text(json.dumps(done, indent=2))
    table = Table(*done[0], title="the smallest that keeps the accuracy on images for choosing")
    is_small = True
    for name, goal in GOALS.items():
        kept = [r for r in done if r["model"] == name and r["drop_chosen"] <= arguments.most_drop]
        best = max(kept, key=lambda row: row["size_ratio"], default=None)
        is_small &= best is not None and best["size_ratio"] >= goal
        if best is not None:
            table.add_row(*(f"{v:.4g}" if isinstance(v, float) else str(v) for v in best.values()))
    Console(width=160).print(table)
    return int(not is_small)


if __name__ == "__main__":
    sys.exit(main())
