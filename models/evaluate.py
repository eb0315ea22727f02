"""Measures a model on held-out images: `--evaluate models/evaluate.py:accuracy`."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

HELD_OUT = Path(__file__).with_name("fashion_heldout.npz")


def accuracy(predict: Callable[[dict[str, np.ndarray]], dict[str, np.ndarray]]) -> np.ndarray:
    """Return 1 for each of the 1,000 images of `fashion_heldout.npz` that is told right, else 0.

    Their mean is the top-1 accuracy; an interval of its drop follows from the single ones.

    Args:
        predict: Runs the model on {"image": float32 [n, 1, 28, 28], pixels in 0..1} and returns
            {"logits": [n, 10]}.
    """
    with np.load(HELD_OUT) as samples:
        return is_right(predict, samples["image"], samples["label"])


def top1(
    predict: Callable[[dict[str, np.ndarray]], dict[str, np.ndarray]],
    images: np.ndarray,
    labels: np.ndarray,
) -> float:
    """Return the share of `images`, uint8 [n, 1, 28, 28], whose greatest logit is their label."""
    return float(is_right(predict, images, labels).mean())


def is_right(
    predict: Callable[[dict[str, np.ndarray]], dict[str, np.ndarray]],
    images: np.ndarray,
    labels: np.ndarray,
    batch: int = 100,
) -> np.ndarray:
    """Return 1 for each of `images`, uint8 [n, 1, 28, 28], whose greatest logit is its label."""
    right = []
    for start in range(0, len(images), batch):
        pixels = images[start : start + batch].astype(np.float32) / 255
        logits = predict({"image": pixels})["logits"]
        right.append(logits.argmax(axis=1) == labels[start : start + batch])
    return np.concatenate(right).astype(np.int64)
