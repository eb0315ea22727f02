"""What does clustering cost on this model: bytes, closeness, task metric, latency, load time?

    python bench/cluster_model.py --model MODEL [--data DATA] [--evaluate FILE.py:FUNCTION]
        [--bits 8 --bits 4 ...] [--granularity scale --granularity tensor ...] [--json OUT.json]

Data-free clustering is done once for each setting. Exits 1 if a result is larger than the model,
is not valid, or is changed by ONNX Runtime's optimiser more than the model is.
"""

import argparse
import json
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from rich.console import Console
from rich.table import Table

from onnxcomp import Report, Settings, compress
from onnxcomp.passes import Cluster


def measure(arguments: argparse.Namespace, bits: int, granularity: str) -> tuple[Report, bool]:
    """Cluster once; return the report, and whether the result is safe."""
    settings = Settings(
        evaluate=arguments.evaluate,
        threads=arguments.threads,
        samples=arguments.samples,
        bench=arguments.bench,
    )
    clustered = compress(
        arguments.model,
        [Cluster(bits=bits, granularity=granularity)],
        data=arguments.data,
        settings=settings,
    )
    with TemporaryDirectory() as folder:
        report = clustered.save(Path(folder, "clustered.onnx"))
    is_safe = report.size_ratio >= 1 and all(each.problem is None for each in report.validation)
    return report, is_safe and report.steps[0].status != "rolled_back"


def row(report: Report, bits: int, granularity: str) -> dict[str, Any]:
    """Return the figures of one setting."""
    metric, timed = report.metric, report.benchmark[0] if report.benchmark else None
    closeness = report.validation[0]
    return {
        "bits": bits,
        "granularity": granularity,
        "status": report.steps[0].status,
        "changed": len(report.steps[0].changed),
        "bytes": report.output.bytes,
        "size_ratio": report.size_ratio,
        "worst_snr_db": closeness.worst_snr_db,
        "optimiser_original": closeness.optimised_difference_original,
        "optimiser_result": closeness.optimised_difference_result,
        "metric_original": metric.original if metric else None,
        "metric": metric.result if metric else None,
        "cpu_ratio": timed.cpu_ratio.median if timed else None,
        "cpu_control": timed.cpu_control.median if timed else None,
        "load_ratio": timed.load_ratio if timed else None,
        "seconds": report.steps[0].seconds,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--model", required=True)
    parser.add_argument("--data")
    parser.add_argument("--evaluate")
    parser.add_argument("--samples", type=int)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--bits", type=int, action="append")
    parser.add_argument("--granularity", action="append")
    parser.add_argument("--bench", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    rows, safe = [], True
    for granularity in arguments.granularity or ["scale"]:
        for bits in arguments.bits or [4]:
            report, is_safe = measure(arguments, bits, granularity)
            rows.append(row(report, bits, granularity))
            safe &= is_safe
    table = Table(*rows[0], title=f"{arguments.model}: {report.source.bytes} bytes")
    for each in rows:
        table.add_row(
            *(
                f"{value:.4g}" if isinstance(value, float) else str(value)
                for value in each.values()
            )
        )
    Console(width=220).print(table)
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=2))
    sys.exit(0 if safe else 1)


if __name__ == "__main__":
    main()
