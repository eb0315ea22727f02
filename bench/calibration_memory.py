"""How much memory and time does calibration take, each in a fresh process?

    python bench/calibration_memory.py --model MODEL --data DATA [--bits 4] [--samples 128]
        [--limit 1.2] [--json OUT.json]

Runs `onnxcomp statistics`, `onnxcomp cluster` and `onnxcomp quantize --mode static`. Memory is the
peak that was resident, of interpreter and libraries too. Exits 1 if the statistics took more than
the limit, in GB (10^9).
"""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter

# Nothing large is imported here: what this process holds would count in its children's peak.
PROGRAM = "from onnxcomp.cli import main; main()"


def measured(command: list[str]) -> dict[str, float]:
    """Run the command line in a fresh process; return its peak in GB and its seconds."""
    started = perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, *command],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        said = process.stderr.read() if process.stderr else ""
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"{said}onnxcomp {command[0]} failed with exit code {process.returncode}")
    unit = 1 if sys.platform == "darwin" else 1024
    return {"gigabytes": usage.ru_maxrss * unit / 1e9, "seconds": perf_counter() - started}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--model", required=True)
    parser.add_argument("--data", required=True)
    parser.add_argument("--bits", type=int, default=4)
    parser.add_argument("--samples", type=int, help="use the first so many of the data")
    parser.add_argument("--limit", type=float, default=1.2, help="GB for the statistics")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    given = ["--data", arguments.data]
    if arguments.samples is not None:
        given += ["--samples", str(arguments.samples)]
    rows = {}
    with TemporaryDirectory() as folder:
        for work, output, options in (
            ("statistics", "statistics.npz", []),
            ("cluster", "small.onnx", ["--bits", str(arguments.bits)]),
            ("quantize", "int8.onnx", ["--mode", "static"]),
        ):
            quick = [] if work == "statistics" else ["--no-bench", "--no-validate"]
            target = str(Path(folder, output))
            rows[work] = measured([work, arguments.model, "-o", target, *given, *options, *quick])
            figures = rows[work]
            print(f"{work:12}{figures['gigabytes']:8.3f} GB{figures['seconds']:9.1f} s")
    if arguments.json:
        arguments.json.write_text(json.dumps(rows | {"limit": arguments.limit}, indent=2))
    holds = rows["statistics"]["gigabytes"] <= arguments.limit
    print(f"statistics: at most {arguments.limit:g} GB: {'holds' if holds else 'MISSED'}")
    return int(not holds)


if __name__ == "__main__":
    sys.exit(main())
