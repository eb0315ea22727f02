"""Trains LeNet-300-100 and LeNet-5 on Fashion-MNIST: `python models/train_lenets.py all`.

They are the two small networks of Deep Compression (Han et al., 2016): 784-300-100-10, and 20 and
50 filters of 5x5 with 2x2 pooling, 500 hidden units and 10 classes. Nothing in their training asks
for zeros: cross entropy and Adam, no weight decay. numpy only, so that no framework is needed;
the data set is found as `train.py` says.
"""

import argparse
import gzip
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from evaluate import top1
from onnx import helper, numpy_helper

DEBIAN_FOLDER = Path("/usr/share/datasets/fashion-mnist")
BATCH = 128
SMALL = 1e-8
KEPT_APART = 5000
"""Of the training images, which are not trained on: results are chosen by them."""

CALIBRATION = 8192
"""Training images, without labels, to calibrate on: ten for each input of the widest layer."""

Array = np.ndarray[Any, Any]


class Dense:
    """y = x W' + b."""

    def __init__(self, inputs: int, outputs: int, random: np.random.Generator) -> None:
        scale = np.sqrt(2 / inputs)
        self.weights = (scale * random.standard_normal((outputs, inputs))).astype(np.float32)
        self.bias = np.zeros(outputs, np.float32)

    def forward(self, given: Array) -> Array:
        """Return the outputs, shape (n, outputs); inputs of any rank are made flat."""
        self.shape, self.given = given.shape, given.reshape(len(given), -1)
        return self.given @ self.weights.T + self.bias

    def backward(self, slope: Array) -> Array:
        """Return the slope of the inputs and keep those of the parameters."""
        self.slopes = (slope.T @ self.given, slope.sum(axis=0))
        return (slope @ self.weights).reshape(self.shape)

    @property
    def parameters(self) -> tuple[Array, Array]:
        """Weights and bias."""
        return self.weights, self.bias


class Conv:
    """A convolution of 5x5 without padding."""

    def __init__(self, inputs: int, outputs: int, random: np.random.Generator) -> None:
        self.inner = Dense(inputs * 25, outputs, random)
        self.inputs = inputs

    def forward(self, given: Array) -> Array:
        """Return the outputs, shape (n, outputs, height - 4, width - 4)."""
        self.shape = given.shape
        views = np.lib.stride_tricks.sliding_window_view(given, (5, 5), axis=(2, 3))
        count, _, height, width = views.shape[:4]
        columns = views.transpose(0, 2, 3, 1, 4, 5).reshape(-1, self.inputs * 25)
        done = self.inner.forward(columns)
        return done.reshape(count, height, width, -1).transpose(0, 3, 1, 2)

    def backward(self, slope: Array) -> Array:
        """Return the slope of the inputs and keep those of the parameters."""
        count, outputs, height, width = slope.shape
        columns = self.inner.backward(slope.transpose(0, 2, 3, 1).reshape(-1, outputs))
        columns = columns.reshape(count, height, width, self.inputs, 5, 5)
        result = np.zeros(self.shape, np.float32)
        for row in range(5):
            for column in range(5):
                part = columns[..., row, column].transpose(0, 3, 1, 2)
                result[:, :, row : row + height, column : column + width] += part
        self.slopes = self.inner.slopes
        return result

    @property
    def parameters(self) -> tuple[Array, Array]:
        """Weights, shape (outputs, inputs * 25), and bias."""
        return self.inner.parameters


class Relu:
    """What is above zero."""

    slopes: tuple[Array, ...] = ()
    parameters: tuple[Array, ...] = ()

    def forward(self, given: Array) -> Array:
        """Return the outputs."""
        self.alive = given > 0
        return given * self.alive

    def backward(self, slope: Array) -> Array:
        """Return the slope of the inputs."""
        return slope * self.alive


class Pool:
    """The largest of 2x2."""

    slopes: tuple[Array, ...] = ()
    parameters: tuple[Array, ...] = ()

    def forward(self, given: Array) -> Array:
        """Return the outputs, half as high and wide."""
        count, channels, height, width = given.shape
        split = given.reshape(count, channels, height // 2, 2, width // 2, 2)
        most = split.max(axis=(3, 5), keepdims=True)
        self.taken = split == most
        return most[:, :, :, 0, :, 0]

    def backward(self, slope: Array) -> Array:
        """Return the slope of the inputs."""
        spread = self.taken * slope[:, :, :, None, :, None]
        count, channels, height, _, width, _ = spread.shape
        return spread.reshape(count, channels, 2 * height, 2 * width)


Part = Dense | Conv | Relu | Pool


@dataclass(frozen=True)
class Recipe:
    """The parts of a network, how often it sees the data, and its highest learning rate."""

    parts: tuple[Part, ...]
    epochs: int
    rate: float


def recipe_of(name: str) -> Recipe:
    """Return how a network is made and trained."""
    random = np.random.default_rng(0)
    if name == "lenet_300_100":
        dense = [Dense(784, 300, random), Dense(300, 100, random), Dense(100, 10, random)]
        return Recipe((dense[0], Relu(), dense[1], Relu(), dense[2]), epochs=12, rate=2e-3)
    filters = [Conv(1, 20, random), Conv(20, 50, random)]
    dense = [Dense(800, 500, random), Dense(500, 10, random)]
    body = (filters[0], Pool(), filters[1], Pool())
    return Recipe((*body, dense[0], Relu(), dense[1]), epochs=4, rate=2e-3)


def train(recipe: Recipe, images: Array, labels: Array) -> None:
    """Train a network in place: cross entropy, Adam, one rise and fall of the learning rate."""
    random = np.random.default_rng(1)
    parameters = [each for part in recipe.parts for each in part.parameters]
    moments = [(np.zeros_like(each), np.zeros_like(each)) for each in parameters]
    steps = len(images) // BATCH
    total = steps * recipe.epochs
    for step in range(total):
        if step % steps == 0:
            order, lost = random.permutation(len(images)), 0.0
        chosen = order[step % steps * BATCH :][:BATCH]
        lost += _step_back(recipe.parts, images[chosen].astype(np.float32) / 255, labels[chosen])
        slopes = [each for part in recipe.parts for each in part.slopes]
        rate = recipe.rate * min(1.0, 4 * step / total + 0.02, 1.3 * (1 - step / total))
        share = rate * np.sqrt(1 - 0.999 ** (step + 1)) / (1 - 0.9 ** (step + 1))
        for value, slope, pair in zip(parameters, slopes, moments, strict=True):
            _move(value, slope, pair, float(share))
        if (step + 1) % steps == 0:
            print(
                f"epoch {(step + 1) // steps} of {recipe.epochs}: {lost / steps:.3f}", flush=True
            )


def _move(value: Array, slope: Array, moments: tuple[Array, Array], rate: float) -> None:
    """Move parameters in place, as Adam does."""
    first, second = moments
    np.add(first, 0.1 * (slope - first), out=first)
    np.add(second, 0.001 * (np.square(slope) - second), out=second)
    np.subtract(value, np.float32(rate) * first / (np.sqrt(second) + SMALL), out=value)


def _step_back(parts: Sequence[Part], images: Array, labels: Array) -> float:
    """Run a batch forth and back; return its cross entropy."""
    given = images
    for part in parts:
        given = part.forward(given)
    given = given - given.max(axis=1, keepdims=True)
    chances = np.exp(given) / np.exp(given).sum(axis=1, keepdims=True)
    rows = np.arange(len(labels))
    lost = float(-np.log(chances[rows, labels] + SMALL).mean())
    chances[rows, labels] -= 1
    slope = chances / len(labels)
    for part in reversed(parts):
        slope = part.backward(slope)
    return lost


def export(parts: Sequence[Part], path: Path) -> None:
    """Write a network as ONNX with a dynamic batch axis."""
    nodes, initializers, current, is_flat = [], [], "image", False
    for place, part in enumerate(parts):
        name = f"layer{place}"
        if isinstance(part, Dense) and not is_flat:
            nodes.append(helper.make_node("Flatten", [current], ["flat"]))
            current, is_flat = "flat", True
        if isinstance(part, Dense | Conv):
            weights, bias = part.parameters
            is_dense = isinstance(part, Dense)
            shape = weights.shape if is_dense else (len(weights), part.inputs, 5, 5)
            initializers.append(numpy_helper.from_array(weights.reshape(shape), f"{name}.weight"))
            initializers.append(numpy_helper.from_array(bias, f"{name}.bias"))
            inputs = [current, f"{name}.weight", f"{name}.bias"]
            settings = {"transB": 1} if is_dense else {}
            nodes.append(
                helper.make_node("Gemm" if is_dense else "Conv", inputs, [name], **settings)
            )
        elif isinstance(part, Pool):
            settings = {"kernel_shape": [2, 2], "strides": [2, 2]}
            nodes.append(helper.make_node("MaxPool", [current], [name], **settings))
        else:
            nodes.append(helper.make_node("Relu", [current], [name]))
        current = name
    nodes[-1].output[0] = "logits"
    image = helper.make_tensor_value_info("image", onnx.TensorProto.FLOAT, ["n", 1, 28, 28])
    logits = helper.make_tensor_value_info("logits", onnx.TensorProto.FLOAT, ["n", 10])
    graph = helper.make_graph(nodes, path.stem, [image], [logits], initializers)
    opset = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=8), path)


def read(folder: Path, part: str) -> tuple[Array, Array]:
    """Return the images, uint8 [n, 1, 28, 28], and labels, uint8 [n], of "train" or "t10k"."""
    images = gzip.decompress((folder / f"{part}-images-idx3-ubyte.gz").read_bytes())
    labels = gzip.decompress((folder / f"{part}-labels-idx1-ubyte.gz").read_bytes())
    return (
        np.frombuffer(images, np.uint8, offset=16).reshape(-1, 1, 28, 28),
        np.frombuffer(labels, np.uint8, offset=8),
    )


def write_samples(folder: Path, training: tuple[Array, Array], test: tuple[Array, Array]) -> None:
    """Write images to calibrate on, others with labels to choose by, and the whole test split."""
    calibration = training[0][:CALIBRATION].astype(np.float32) / 255
    np.savez_compressed(folder / "lenet_calibration.npz", image=calibration)
    for name, (images, labels) in {
        "lenet_chosen": (training[0][-KEPT_APART:], training[1][-KEPT_APART:]),
        "lenet_test": test,
    }.items():
        np.savez_compressed(folder / f"{name}.npz", image=images, label=labels)


def main() -> None:
    """Train what the command line names and write it, with data to compress and measure it by."""
    names = ["lenet_300_100", "lenet_5"]
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("model", choices=[*names, "all"])
    parser.add_argument("--data", type=Path, default=DEBIAN_FOLDER, help="the four idx .gz files")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "fetched")
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    training, test = read(arguments.data, "train"), read(arguments.data, "t10k")
    write_samples(arguments.output, training, test)
    for name in names if arguments.model == "all" else [arguments.model]:
        recipe, path = recipe_of(name), arguments.output / f"{name}.onnx"
        train(recipe, *(each[:-KEPT_APART] for each in training))
        export(recipe.parts, path)
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        accuracy = top1(lambda feed, s=session: {"logits": s.run(None, feed)[0]}, *test)
        print(f"{path.name}: accuracy {accuracy:.4f} on {len(test[0]):,} test images", flush=True)


if __name__ == "__main__":
    main()
