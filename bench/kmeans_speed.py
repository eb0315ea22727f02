"""How long does it take to cluster weights, and how good is the codebook?

Times the histogram, the codebook and the codes of the clustering pass against sorting the same
array, and against other k-means implementations if asked: `sklearn` (KMeans, k-means++, one
start), `coremltools` (its k-means of the weights as float16, exact). All are run in
turn, so that a ratio compares runs next to each other; the median of the ratios is printed.

The reference of the squared error is the optimum: of all values by kmeans1d, an independent
exact implementation, up to a million of them; and else by our dynamic program, without merging,
over bins of relative width 2**-13. Errors are those of the decoded float32 values.

Run: python bench/kmeans_speed.py [--millions 10 100] [--rivals sklearn coremltools] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import numpy_helper

from onnxcomp_passes.cluster import kmeans
from onnxcomp_passes.cluster.histogram import Histogram

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    Values = NDArray[np.float32]
    Floats = NDArray[np.float64]

BLOCK = 1 << 22
FINE_SHIFT = 10
FEW = 1_000_000


def gauss(size: int) -> Values:
    """Mixture of two Gaussians, as in weights with many small ones; shape (size,)."""
    generator = np.random.default_rng(0)
    values = generator.standard_normal(size, np.float32)
    values[: size // 2] *= np.float32(0.2)
    generator.shuffle(values)
    return values * np.float32(0.05)


def heavy(size: int) -> Values:
    """Student's t with 5 degrees of freedom; shape (size,)."""
    return np.random.default_rng(0).standard_t(5, size).astype(np.float32) * np.float32(0.05)


def weights_of(path: Path) -> Values:
    """All float32 and float16 initializers of a model, flat."""
    tensors = map(numpy_helper.to_array, onnx.load(path).graph.initializer)
    floats = [tensor for tensor in tensors if tensor.dtype in {np.dtype("f4"), np.dtype("f2")}]
    return np.concatenate([tensor.reshape(-1).astype(np.float32) for tensor in floats])


class Stopwatch:
    """Wall and CPU seconds by name, one for every call."""

    def __init__(self) -> None:
        self.wall: dict[str, list[float]] = {}
        self.cpu: dict[str, list[float]] = {}

    def run(self, name: str, call: Callable[[], Any]) -> Any:
        """Returns what the call returns."""
        wall, cpu = time.perf_counter(), time.process_time()
        result = call()
        self.wall.setdefault(name, []).append(time.perf_counter() - wall)
        self.cpu.setdefault(name, []).append(time.process_time() - cpu)
        return result

    def add_up(self, name: str, parts: tuple[str, ...]) -> None:
        """Makes a sum of others."""
        for seconds in (self.wall, self.cpu):
            rounds = zip(*(seconds[part] for part in parts), strict=True)
            seconds[name] = [sum(one) for one in rounds]


def count(values: Values) -> Histogram:
    histogram = Histogram()
    histogram.add(values)
    return histogram


def with_sklearn(values: Values, clusters: int) -> tuple[Floats, NDArray[Any]]:
    from sklearn.cluster import KMeans  # noqa: PLC0415  # an optional rival

    fitted = KMeans(clusters, n_init=1, random_state=0).fit(values[:, None])
    return fitted.cluster_centers_[:, 0], fitted.labels_


def with_coremltools(values: Values, clusters: int) -> tuple[Floats, NDArray[Any]]:
    from coremltools.models.neural_network import quantization_utils  # noqa: PLC0415  # optional

    lookup = quantization_utils._get_kmeans_lookup_table_and_weight  # noqa: SLF001  # no other way
    book, codes = lookup(clusters.bit_length() - 1, values)
    return book.reshape(-1), codes.reshape(-1)


RIVALS = {"sklearn": with_sklearn, "coremltools": with_coremltools}


def optimum(values: Values, clusters: int) -> Floats:
    """The best codebook, by kmeans1d or, for many values, without merging; shape (clusters,)."""
    if values.size <= FEW:
        import kmeans1d  # noqa: PLC0415  # an optional rival

        return np.array(kmeans1d.cluster(values.astype(np.float64), clusters).centroids)
    keys = values.view(np.uint32) >> FINE_SHIFT
    counts = np.zeros(1 << (32 - FINE_SHIFT))
    sums = np.zeros_like(counts)
    for start in range(0, values.size, BLOCK):
        block = keys[start : start + BLOCK].astype(np.intp)
        np.add.at(counts, block, 1.0)
        np.add.at(sums, block, values[start : start + BLOCK].astype(np.float64))
    filled = np.flatnonzero(counts)
    points, counts = sums[filled] / counts[filled], counts[filled]
    order = np.argsort(points)
    merging, kmeans.EXACT_POINTS = kmeans.EXACT_POINTS, points.size
    best = kmeans.cluster_points(points[order], counts[order], clusters)
    kmeans.EXACT_POINTS = merging
    return best


def mean_squared_error(values: Values, codebook: Floats, codes: NDArray[Any]) -> float:
    total = 0.0
    for start in range(0, values.size, BLOCK):
        part = slice(start, start + BLOCK)
        total += float(np.sum((values[part] - codebook[codes[part]]) ** 2))
    return total / values.size


def measure(values: Values, clusters: int, rivals: list[str], repeats: int) -> dict[str, Any]:
    watch = Stopwatch()
    errors = {}
    for _ in range(repeats):
        watch.run("sort", lambda: np.sort(values))
        histogram = watch.run("histogram", lambda: count(values))
        book = watch.run("codebook", lambda: kmeans.cluster_points(*histogram.points(), clusters))  # noqa: B023  # called at once
        codes = watch.run("codes", lambda: kmeans.assign(values, book))  # noqa: B023  # called at once
        errors["onnxcomp"] = mean_squared_error(values, book, codes)
        for name in rivals:
            given = values.astype(np.float16) if name == "coremltools" else values
            run = RIVALS[name]
            rival_book, rival_codes = watch.run(name, lambda: run(given, clusters))  # noqa: B023  # called at once
            errors[name] = mean_squared_error(values, rival_book, rival_codes)
    watch.add_up("onnxcomp", ("histogram", "codebook", "codes"))
    best = optimum(values, clusters)
    errors["optimum"] = mean_squared_error(values, best, kmeans.assign(values, best))
    return {"wall": watch.wall, "cpu": watch.cpu, "errors": errors}


def rows_of(figures: dict[str, Any]) -> Iterator[tuple[str, ...]]:
    """One row per step and rival, as text."""
    wall, cpu, errors = figures["wall"], figures["cpu"], figures["errors"]
    for name in wall:
        cells = [name, f"{median(wall[name]):.3f}", f"{median(cpu[name]):.3f}"]
        for base in ("sort", "onnxcomp"):
            ratios = [one / other for one, other in zip(cpu[name], cpu[base], strict=True)]
            cells.append(f"{median(ratios):.2f}")
        worse = f"{100 * (errors[name] / errors['optimum'] - 1):+.4f} %" if name in errors else ""
        yield (*cells, worse)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--millions", type=float, nargs="*", default=[10.0])
    parser.add_argument("--model", type=Path, nargs="*", default=[])
    parser.add_argument("--clusters", type=int, nargs="+", default=[16])
    parser.add_argument("--rivals", choices=sorted(RIVALS), nargs="*", default=[])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    sizes = [round(each * 1e6) for each in asked.millions]
    cases = [
        (f"{make.__name__} {size / 1e6:g} M", lambda make=make, size=size: make(size))
        for size in sizes
        for make in (gauss, heavy)
    ]
    cases += [(path.stem, lambda path=path: weights_of(path)) for path in asked.model]
    results = {}
    for name, make in cases:
        values = make()
        for clusters in asked.clusters:
            title = f"{name}, {values.size} weights, {clusters} clusters"
            results[title] = measure(values, clusters, asked.rivals, asked.repeats)
            print(f"\n{title}")
            head = ("", "wall s", "CPU s", "CPU/sort", "CPU/onnxcomp", "MSE over optimum")
            for row in (head, *rows_of(results[title])):
                print("  ".join(f"{cell:>16}" for cell in row), flush=True)
    if asked.json:
        asked.json.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
