"""The script that makes the README's first table."""

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]

LIST = """
[[models]]
name = "Small"
metric = "accuracy"
model = "small.onnx"
data = "small.npz"
evaluate = "small.py:accuracy"
"""


def test_only_the_table_is_replaced(tmp_path):
    rows = [
        {"form": form, "bits": bits, "bytes": 100 * bits, "size_ratio": 12 / bits}
        | {"metric": 0.9 + bits / 1000, "status": "applied"}
        for form in ("free", "data")
        for bits in (4, 3)
    ]
    (tmp_path / "list.toml").write_text(LIST)
    (tmp_path / "Small.json").write_text(json.dumps({"metric": 0.95, "rows": rows}))
    readme = (ROOT / "README.md").read_text()
    (tmp_path / "README.md").write_text(readme)
    script = ROOT / "bench" / "readme_table.py"
    command = [sys.executable, script, "list.toml", "--results", ".", "--readme", "README.md"]
    subprocess.run(command, check=True, cwd=tmp_path)
    before, after = readme.splitlines(), (tmp_path / "README.md").read_text().splitlines()
    (row,) = set(after) - set(before)
    assert row == (
        "| Small, accuracy | 1.2 kB, 0.950 | 0.4 kB, 0.904 | **0.4 kB, 0.904** | 0.3 kB, 0.903 |"
    )
    table = [line for line in before if line not in after]
    assert table
    assert all(line.startswith("| ") for line in table)
    assert [line for line in after if line != row] == [line for line in before if line in after]
