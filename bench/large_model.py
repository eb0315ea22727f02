"""What does a model of 3 GB cost, in time and in anonymous memory?

Reading and writing it unchanged is timed side by side with onnx-ir; then every weight of it is
clustered to 4 bits. Each measurement is a fresh process, whose anonymous memory is sampled while
it works; mapped pages of the model's file do not count, since the system takes them back.

Run: python bench/large_model.py [--gigabytes 3] [--rounds 3] [--folder TEMPORARY] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from threading import Event, Thread
from time import perf_counter, process_time
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx

if TYPE_CHECKING:
    from collections.abc import Iterator

SIDE = 8192
GIB = 1 << 30
SAMPLING_SECONDS = 0.005
BARS = {"time against onnx-ir": 2.0, "no-op GiB": 0.3, "cluster GiB": 1.0}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--gigabytes", type=float, default=3.0)
    parser.add_argument("--rounds", type=int, default=3, help="timed runs of each no-op")
    parser.add_argument("--folder", type=Path, help="where there is room for three such models")
    parser.add_argument("--json", type=Path, help="write the figures here")
    parser.add_argument("--work", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.work:
        print(json.dumps(measured(*arguments.work)))
        return 0
    with TemporaryDirectory(dir=arguments.folder) as folder:
        model = build(Path(folder), arguments.gigabytes)
        runs = [
            in_a_child(work, model, Path(folder, work))
            for _ in range(arguments.rounds)
            for work in ("onnx-ir", "no-op")
        ]
        runs.append(in_a_child("cluster", model, Path(folder, "cluster")))
    return report(runs, arguments.json)


def build(folder: Path, gigabytes: float) -> Path:
    """Write a chain of MatMuls whose weights lie in one file beside it."""
    count = max(1, round(gigabytes * 1e9 / (SIDE * SIDE * 4)))
    block = np.random.default_rng(0).standard_normal((SIDE, SIDE), np.float32)
    weights = []
    with (folder / "model.data").open("wb") as file:
        for layer in range(count):
            tensor = onnx.TensorProto(name=f"weight{layer}", data_type=1, dims=(SIDE, SIDE))
            tensor.data_location = onnx.TensorProto.EXTERNAL
            fields = {"location": "model.data", "offset": file.tell(), "length": block.nbytes}
            for key, value in fields.items():
                tensor.external_data.add(key=key, value=str(value))
            (block * np.float32(0.01 + layer * 0.001)).tofile(file)
            weights.append(tensor)
    nodes = [
        onnx.helper.make_node("MatMul", [f"x{layer}", f"weight{layer}"], [f"x{layer + 1}"])
        for layer in range(count)
    ]
    ends = [
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["batch", SIDE])
        for name in ("x0", f"x{count}")
    ]
    graph = onnx.helper.make_graph(nodes, "large", ends[:1], ends[1:], weights)
    opsets = [onnx.helper.make_opsetid("", 17)]
    path = folder / "model.onnx"
    path.write_bytes(
        onnx.helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString()
    )
    return path


def in_a_child(work: str, model: Path, target: Path) -> dict[str, Any]:
    """Do one piece of work in a fresh process and return what it measured."""
    target.mkdir(exist_ok=True)
    command = [sys.executable, __file__, "--work", work, str(model), str(target / "model.onnx")]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE)
    for written in target.iterdir():
        written.unlink()
    result: dict[str, Any] = json.loads(done.stdout)
    print(
        f"{work:10}{result['seconds']:8.1f} s {result['anonymous_gib']:8.3f} GiB anonymous",
        file=sys.stderr,
    )
    return result


def measured(work: str, model: str, target: str) -> dict[str, Any]:
    if work == "onnx-ir":
        import onnx_ir  # noqa: PLC0415 - each child loads only what it measures

        def act() -> None:
            onnx_ir.save(onnx_ir.load(model), target, external_data="model.data")

    elif work == "no-op":
        from onnxcomp.graph import copy_model, load_model, save_model  # noqa: PLC0415

        def act() -> None:
            save_model(copy_model(load_model(model)), target)

    else:
        from onnxcomp import Settings, compress  # noqa: PLC0415
        from onnxcomp.passes import Cluster  # noqa: PLC0415

        def act() -> None:
            settings = Settings.model_validate({"validate": False, "bench": False})
            compress(model, [Cluster(bits=4)], settings=settings).save(target)

    with sampled_memory() as peak:
        started, used = perf_counter(), process_time()
        act()
        seconds, cpu_seconds = perf_counter() - started, process_time() - used
    return {
        "work": work,
        "seconds": seconds,
        "cpu_seconds": cpu_seconds,
        "anonymous_gib": peak[0] / GIB,
        "bytes": sum(each.stat().st_size for each in Path(target).parent.iterdir()),
    }


@contextmanager
def sampled_memory() -> Iterator[list[int]]:
    """Give a list whose one entry becomes the most anonymous memory that the process had."""
    peak = [anonymous_bytes()]
    done = Event()

    def sample() -> None:
        while not done.wait(SAMPLING_SECONDS):
            peak[0] = max(peak[0], anonymous_bytes())

    sampler = Thread(target=sample)
    sampler.start()
    try:
        yield peak
    finally:
        done.set()
        sampler.join()


def anonymous_bytes() -> int:
    status = Path("/proc/self/status").read_text(encoding="ascii")
    line = next(each for each in status.splitlines() if each.startswith("RssAnon"))
    return int(line.split()[1]) * 1024


def report(runs: list[dict[str, Any]], path: Path | None) -> int:
    """Print the table and whether the bars hold."""
    by_work: dict[str, list[dict[str, Any]]] = {}
    for run in runs:
        by_work.setdefault(run["work"], []).append(run)
    rows = {
        work: {
            "seconds": median(run["seconds"] for run in of_work),
            "cpu_seconds": median(run["cpu_seconds"] for run in of_work),
            "anonymous_gib": max(run["anonymous_gib"] for run in of_work),
            "bytes": of_work[0]["bytes"],
        }
        for work, of_work in by_work.items()
    }
    print(f"{'work':10}{'runs':>6}{'seconds':>10}{'CPU':>8}{'GiB':>8}{'bytes':>15}")
    for work, row in rows.items():
        print(
            f"{work:10}{len(by_work[work]):6}{row['seconds']:10.2f}{row['cpu_seconds']:8.2f}"
            f"{row['anonymous_gib']:8.3f}{row['bytes']:15,}"
        )
    figures = {
        "time against onnx-ir": rows["no-op"]["seconds"] / rows["onnx-ir"]["seconds"],
        "no-op GiB": rows["no-op"]["anonymous_gib"],
        "cluster GiB": rows["cluster"]["anonymous_gib"],
    }
    for name, bar in BARS.items():
        verdict = "holds" if figures[name] <= bar else "MISSED"
        print(f"{name}: {figures[name]:.3f}, at most {bar:g}: {verdict}")
    if path is not None:
        path.write_text(json.dumps({"rows": rows, "figures": figures, "bars": BARS}, indent=1))
    return int(any(figures[name] > bar for name, bar in BARS.items()))


if __name__ == "__main__":
    sys.exit(main())
