"""Measures a model on held-out images: `--evaluate models/evaluate.py:accuracy`."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

HELD_OUT = Path(__file__).with_name("fashion_heldout.npz")


def accuracy(predict: Callable[[dict[str, np.ndarray]], dict[str, np.ndarray]]) -> float:
    """Return the top-1 accuracy, 0 to 1, on the 1,000 images of `fashion_heldout.npz`.

    Args:
        predict: Runs the model on {"image": float32 [n, 1, 28, 28], pixels in 0..1} and returns
            {"logits": [n, 10]}.
    """
    with np.load(HELD_OUT) as samples:
        return top1(predict, samples["image"], samples["label"])


def top1(
    predict: Callable[[dict[str, np.ndarray]], dict[str, np.ndarray]],
    images: np.ndarray,
    labels: np.ndarray,
    batch: int = 100,
) -> float:
    """Return the share of `images`, uint8 [n, 1, 28, 28], whose greatest logit is their label."""
    right = 0
    for start in range(0, len(images), batch):
        pixels = images[start : start + batch].astype(np.float32) / 255
        logits = predict({"image": pixels})["logits"]
        right += int(np.sum(logits.argmax(axis=1) == labels[start : start + batch]))
    return right / len(images)
