"""The first table of the README, from what `calibrated_clustering.py` measures.

    python bench/readme_table.py MODELS.toml --results FOLDER [--measure] [--readme README.md]

MODELS.toml lists the models in the order of the table:

    [[models]]
    name = "MiniLM-L6"
    metric = "retrieval MRR"
    model = "minilm.onnx"
    data = "calibration.npz"
    evaluate = "metrics.py:minilm"

FOLDER holds a file for each, NAME.json; with --measure those that are missing are made first. The
rows between the two markers in the README are replaced, and nothing else of it. Exits 1 if a
measurement fails, is missing, or has a row that is not valid.
"""

import argparse
import json
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

BEGIN = "<!-- bench/readme_table.py makes what follows -->\n"
END = "<!-- until here -->\n"

COLUMNS = (("free", 4), ("data", 4), ("data", 3))
"""Form and bits of the columns, as `calibrated_clustering.py` names them."""

BOLD = ("data", 4)

HEAD = (
    "| model, task metric | original | 4 bits, without data | 4 bits, with data "
    "| 3 bits, with data |\n|---|---|---|---|---|\n"
)


def measure(entry: dict[str, str], results: Path) -> None:
    """Run the measurement of one model, and write its file."""
    script = Path(__file__).with_name("calibrated_clustering.py")
    arguments = [f"--{key}={entry[key]}" for key in ("model", "data", "evaluate")]
    wanted = ["--forms=data,free", "--bits=4", "--bits=3", f"--json={results}"]
    subprocess.run([sys.executable, script, *arguments, *wanted], check=True)


def line(entry: dict[str, str], measured: dict[str, Any]) -> str:
    """Return the row of one model."""
    rows = {(row["form"], row["bits"]): row for row in measured["rows"]}
    for column in COLUMNS:
        status = rows[column]["status"]
        if status not in {"applied", "nothing"}:
            raise SystemExit(f"{entry['name']}: {column} is {status}; measure it again")
    first = rows[BOLD]
    cells = [cell(first["bytes"] * first["size_ratio"], measured["metric"])]
    for column in COLUMNS:
        text = cell(rows[column]["bytes"], rows[column]["metric"])
        cells.append(f"**{text}**" if column == BOLD else text)
    return f"| {entry['name']}, {entry['metric']} | {' | '.join(cells)} |\n"


def cell(size: float, metric: float) -> str:
    """Return a size and a metric, as the table has them."""
    unit, name = (1e6, "MB") if size >= 1e6 else (1e3, "kB")
    return f"{size / unit:.3g} {name}, {metric:.3f}"


def replaced(readme: str, table: str) -> str:
    """Return the README with another table between the markers."""
    before, begin, rest = readme.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise SystemExit(f"the README has no markers {BEGIN.strip()!r} and {END.strip()!r}")
    return f"{before}{begin}{table}{end}{after}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("models", type=Path)
    parser.add_argument("--results", type=Path, required=True)
    parser.add_argument("--measure", action="store_true")
    readme = Path(__file__).parents[1] / "README.md"
    parser.add_argument("--readme", type=Path, default=readme)
    arguments = parser.parse_args()
    table = HEAD
    for entry in tomllib.loads(arguments.models.read_text())["models"]:
        results = arguments.results / f"{entry['name']}.json"
        if arguments.measure and not results.exists():
            measure(entry, results)
        table += line(entry, json.loads(results.read_text()))
    text = arguments.readme.read_text()
    arguments.readme.write_text(replaced(text, table))
    return 0


if __name__ == "__main__":
    sys.exit(main())
