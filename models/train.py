"""Trains the small models of this folder on Fashion-MNIST: `python models/train.py all`.

Needs the extra `train` (torch). The data set is that of the Debian package
`dataset-fashion-mnist`. Install it, or unpack it with `apt-get download` and `dpkg-deb -x` and
name its folder with `--data`. One thread and a fixed seed make the result the same from run to
run on one machine; another processor or torch version rounds differently.
"""

import argparse
import gzip
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from evaluate import HELD_OUT, accuracy, top1
from torch import nn
from torch.nn import functional

FOLDER = Path(__file__).parent
LARGE_FOLDER = FOLDER / "fetched"
"""Where models go that are too large for the repository."""

DEBIAN_FOLDER = Path("/usr/share/datasets/fashion-mnist")
BATCH = 128


class Normalized(nn.Module):
    """Brings pixels in 0..1 to mean 0 and deviation 1, then runs `layers`."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.layers = nn.Sequential(*layers)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Return the logits [n, 10] of images [n, 1, 28, 28]."""
        return self.layers((image - 0.286) / 0.353)


class Residual(nn.Module):
    """Two 3x3 convolutions beside a 1x1 shortcut; halves height and width."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        first = convolution(inputs, outputs, 3, stride=2)
        self.body = nn.Sequential(*first, nn.ReLU(), *convolution(outputs, outputs, 3))
        self.shortcut = nn.Sequential(*convolution(inputs, outputs, 1, stride=2))

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Return [n, outputs, height / 2, width / 2], rounded up."""
        return functional.relu(self.shortcut(features) + self.body(features))


class Inverted(nn.Module):
    """Widen fourfold, filter each channel, narrow; added to the input where shapes agree."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        wide = 4 * inputs
        self.body = nn.Sequential(
            *convolution(inputs, wide, 1),
            nn.ReLU6(),
            *convolution(wide, wide, 3, stride=stride, groups=wide),
            nn.ReLU6(),
            *convolution(wide, outputs, 1),
        )
        self.is_residual = stride == 1 and inputs == outputs

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Return [n, outputs, height / stride, width / stride], rounded up."""
        given = self.body(features)
        return features + given if self.is_residual else given


def convolution(
    inputs: int, outputs: int, size: int, *, stride: int = 1, groups: int = 1
) -> list[nn.Module]:
    """Return a padded convolution and its batch normalization."""
    layer = nn.Conv2d(inputs, outputs, size, stride, size // 2, groups=groups, bias=False)
    return [layer, nn.BatchNorm2d(outputs)]


def separable(inputs: int, outputs: int) -> list[nn.Module]:
    """Return a depthwise 3x3 and a pointwise convolution, each with its ReLU."""
    depthwise = convolution(inputs, inputs, 3, groups=inputs)
    return [*depthwise, nn.ReLU(), *convolution(inputs, outputs, 1), nn.ReLU()]


def cnn() -> nn.Module:
    """Return a residual network with one depthwise-separable block."""
    stem = [*convolution(1, 16, 3), nn.ReLU(), nn.MaxPool2d(2)]
    blocks = [*separable(16, 48), Residual(48, 64), Residual(64, 96)]
    return Normalized(*stem, *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(96, 10))


def mobilenet() -> nn.Module:
    """Return a network of inverted residual blocks, as in MobileNetV2."""
    widths = [(16, 16, 1), (16, 24, 2), (24, 24, 1), (24, 48, 2), (48, 48, 1), (48, 48, 1)]
    blocks = [Inverted(*each) for each in widths]
    head = [*convolution(48, 192, 1), nn.ReLU6(), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return Normalized(*convolution(1, 16, 3), nn.ReLU6(), *blocks, *head, nn.Linear(192, 10))


def mlp() -> nn.Module:
    """Return the perceptron 784-300-128-10."""
    hidden = [nn.Linear(784, 300), nn.ReLU(), nn.Linear(300, 128), nn.ReLU()]
    return Normalized(nn.Flatten(), *hidden, nn.Linear(128, 10))


def vgg() -> nn.Module:
    """Return the first four stages of VGG-11; 28 pixels leave no room for the fifth.

    The first convolution goes in steps of two besides.
    """
    pool, layers = nn.MaxPool2d(2, ceil_mode=True), []
    for inputs, outputs, stride, then in [
        (1, 64, 2, [pool]), (64, 128, 1, [pool]), (128, 256, 1, []), (256, 256, 1, [pool]),
        (256, 512, 1, []), (512, 512, 1, []),
    ]:  # fmt: skip
        layers += [*convolution(inputs, outputs, 3, stride=stride), nn.ReLU(), *then]
    return Normalized(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, 10))


@dataclass(frozen=True)
class Recipe:
    """A network, how many epochs it trains and its highest learning rate.

    `smoothing` is that of the labels; `mirrored` shows every second batch mirrored; what is
    `large` goes to `fetched/`.
    """

    build: Callable[[], nn.Module]
    epochs: int
    rate: float
    smoothing: float = 0.05
    mirrored: bool = True
    large: bool = False


RECIPES = {
    "cnn": Recipe(cnn, epochs=6, rate=6e-3),
    "mlp": Recipe(mlp, epochs=20, rate=2e-3),
    "mobilenet": Recipe(mobilenet, epochs=6, rate=6e-3),
    "vgg": Recipe(vgg, epochs=1, rate=1e-3, smoothing=0, mirrored=False, large=True),
}


def read(folder: Path, part: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the images, uint8 [n, 1, 28, 28], and labels, uint8 [n], of "train" or "t10k"."""
    images = gzip.decompress((folder / f"{part}-images-idx3-ubyte.gz").read_bytes())
    labels = gzip.decompress((folder / f"{part}-labels-idx1-ubyte.gz").read_bytes())
    return (
        np.frombuffer(images, np.uint8, offset=16).reshape(-1, 1, 28, 28),
        np.frombuffer(labels, np.uint8, offset=8),
    )


def write_samples(folder: Path) -> None:
    """Write the first 1,000 test images with labels and the first 256 training images."""
    images, labels = read(folder, "t10k")
    np.savez_compressed(HELD_OUT, image=images[:1000], label=labels[:1000])
    images, _ = read(folder, "train")
    pixels = images[:256].astype(np.float32) / 255
    np.savez_compressed(FOLDER / "fashion_calibration.npz", image=pixels)


def train(recipe: Recipe, pixels: np.ndarray, classes: np.ndarray) -> nn.Module:
    """Return the trained network: AdamW with weight decay, one learning-rate cycle."""
    torch.manual_seed(0)
    network = recipe.build().to(memory_format=torch.channels_last)
    images = torch.from_numpy(pixels.astype(np.float32) / 255)
    labels = torch.from_numpy(classes.astype(np.int64))
    steps = len(images) // BATCH
    optimizer = torch.optim.AdamW(network.parameters(), recipe.rate, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, recipe.rate, total_steps=recipe.epochs * steps
    )
    for epoch in range(recipe.epochs):
        order = torch.randperm(len(images))
        total = 0.0
        for step in range(steps):
            chosen = order[step * BATCH : (step + 1) * BATCH]
            is_turned = recipe.mirrored and step % 2
            shown = images[chosen].flip(-1) if is_turned else images[chosen]
            loss = functional.cross_entropy(
                network(shown), labels[chosen], label_smoothing=recipe.smoothing
            )
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            total += loss.item()
        print(f"epoch {epoch + 1} of {recipe.epochs}: loss {total / steps:.3f}", flush=True)
    return network.to(memory_format=torch.contiguous_format).eval()


def export(network: nn.Module, path: Path) -> None:
    """Write the network as ONNX with a dynamic batch axis."""
    torch.onnx.export(
        network,
        (torch.zeros(2, 1, 28, 28),),
        path,
        input_names=["image"],
        output_names=["logits"],
        dynamic_axes={"image": {0: "n"}, "logits": {0: "n"}},
        opset_version=17,
        dynamo=False,
    )


def describe(path: Path, images: np.ndarray, labels: np.ndarray) -> str:
    """Return the sizes of a written model and its accuracies under ONNX Runtime."""
    weights = onnx.load(path).graph.initializer
    parameters = sum(math.prod(weight.dims) for weight in weights)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])

    def predict(feed: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        return {"logits": session.run(["logits"], feed)[0]}

    return (
        f"{path.name}: {parameters:,} parameters, {path.stat().st_size:,} bytes; "
        f"accuracy {top1(predict, images, labels):.4f} on {len(images):,} test images, "
        f"{accuracy(predict).mean():.4f} on the held-out samples"
    )


def main() -> None:
    """Train what the command line names, write it to this folder and measure it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", choices=[*RECIPES, "all"])
    parser.add_argument("--data", type=Path, default=DEBIAN_FOLDER, help="the four idx .gz files")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    write_samples(arguments.data)
    training, test = read(arguments.data, "train"), read(arguments.data, "t10k")
    for name in RECIPES if arguments.model == "all" else [arguments.model]:
        network = train(RECIPES[name], *training)
        folder = LARGE_FOLDER if RECIPES[name].large else FOLDER
        folder.mkdir(exist_ok=True)
        path = folder / f"fashion_{name}.onnx"
        export(network, path)
        print(describe(path, *test))


if __name__ == "__main__":
    main()
