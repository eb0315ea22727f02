"""A report with everything in it."""

import pytest
from made_up import NAME, benchmark, search, step, trial, verdict

from onnxcomp.report import Environment, FileRecord, GraphChange, Report
from onnxcomp.report.graph_changes import Resized, Rewrite
from onnxcomp.runtime.comparison import OutputComparison
from onnxcomp.validation import Metric, Validation


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
        compared=80,
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
            front=(2, 1, 0),
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
