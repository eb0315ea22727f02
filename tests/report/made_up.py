"""Records that are made up: names are such as anybody may give a tensor."""

from onnxcomp.benchmarking import Benchmark, PeakMemory
from onnxcomp.intervals import Interval
from onnxcomp.report import Search, Step, Trial
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
        strain=drop,
        snr_db=None if drop is None else 20.0,
        latency_ratio=latency,
        latency_low=latency,
        latency_high=latency,
        seconds=1.5,
    )


def search(*trials, chosen=None, front=()):
    return Search(goal="size", floor=NAME, trials=trials, chosen=chosen, front=front)


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
