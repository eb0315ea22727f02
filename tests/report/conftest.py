"""A report with everything in it, made up: names are such as anybody may give a tensor."""

import pytest

from onnxcomp.benchmarking import Benchmark, Interval, PeakMemory
from onnxcomp.report import Environment, FileRecord, GraphChange, Report, Search, Step, Trial
from onnxcomp.report.graph_changes import Resized, Rewrite
from onnxcomp.runtime.comparison import OutputComparison
from onnxcomp.validation import Metric, Validation
from onnxcomp.verdicts import Verdict

NAME = "<script>alert(1)</script>|`w`*_&\n@all"


def trial(number, count, drop, *, status="kept", latency=None, passes=("cluster",)):
    return Trial(
        number=number,
        recipe={"passes": [{"pass": each, "include": [NAME]} for each in passes]},
        status=status,
        reason="" if status == "kept" else NAME,
        bytes=count,
        drop=drop,
        snr_db=None if drop is None else 20.0,
        latency_ratio=latency,
        seconds=1.5,
    )


def search(*trials, chosen=None):
    return Search(goal="size", floor=NAME, trials=trials, chosen=chosen)


def verdict(name, after=25, *, is_changed=True):
    return Verdict(
        name=name,
        op_types=(NAME,),
        shape=(2, 3),
        verdict="changed" if is_changed else "skipped",
        reason=NAME,
        bytes_before=100,
        bytes_after=after if is_changed else 100,
        error=0.1 if is_changed else None,
    )


def benchmark(ratio, control, spread=0.01):
    def interval(median):
        return Interval(median=median, low=median - spread, high=median + spread)

    return Benchmark(
        provider="cpu",
        threads=1,
        pairs=30,
        latency_ratio=interval(ratio),
        cpu_ratio=interval(ratio),
        control=interval(control),
        cpu_control=interval(control),
        latency_ratios=tuple(ratio + (place - 15) / 1500 for place in range(30)),
        control_ratios=tuple(control + (place - 15) / 1500 for place in range(30)),
        load_ratio=1.1,
        peak_memory=PeakMemory(original=10_000_000, result=9_000_000),
    )


def step(name, *tensors, status="applied"):
    return Step(name=name, options={}, status=status, reason=NAME, seconds=1.0, tensors=tensors)


@pytest.fixture
def full():
    output = OutputComparison(
        name=NAME,
        dtype="float32",
        cosine=0.99,
        snr_db=20.0,
        squared_error=0.01,
        max_abs=0.5,
        agreement=0.98,
    )
    return Report(
        version="1.2.3",
        source=FileRecord(path="in/<b>.onnx", bytes=1000, zstd_bytes=900, sha256="ab" * 32),
        output=FileRecord(path="out/small.onnx", bytes=250, zstd_bytes=240, sha256="cd" * 32),
        steps=(
            step("prune", verdict(NAME, 60), verdict("bias", is_changed=False)),
            step("cluster", verdict(NAME), verdict("bias", is_changed=False)),
        ),
        validation=(Validation(provider="cpu", samples=8, synthetic=True, outputs=(output,)),),
        metric=Metric(original=0.9, result=0.89),
        benchmark=(benchmark(0.8, 1.0),),
        search=search(
            trial(0, 500, 0.001, latency=0.9),
            trial(1, 250, 0.01, latency=1.0, passes=("prune", "cluster")),
            trial(2, 100, 0.5, status="missed"),
            trial(3, None, None, status="failed", passes=("gone",)),
            chosen=1,
        ),
        missed=NAME,
        graph=GraphChange(
            operators_before={"Conv": 2, "Div": 1},
            operators_after={"Conv": 2},
            rewrites=(Rewrite(before=("Div", "Conv"), after=("Conv",), places=(NAME, "b")),),
            resized=(Resized(name=NAME, op_type="Conv", before=((4, 3),), after=((2, 3), ())),),
        ),
        recipe={"passes": [{"pass": "cluster", "bits": 3, "exclude": [NAME]}]},
        environment=Environment(
            python="3.11.7",
            onnx="1.23.2",
            onnxruntime="1.31.1",
            system="Linux",
            processor="Some <processor>",
            cores=2,
            providers=("cpu",),
            threads=0,
        ),
    )
