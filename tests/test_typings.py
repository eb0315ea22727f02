import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

FAULTS = """
import onnx_graphsurgeon as gs

def add(node: gs.Node) -> None:
    node.inptus.append(3)

def rename(node: gs.Node) -> None:
    node.op = 7

def read(node: gs.Node) -> None:
    print(node.attrz)

def forget(constant: gs.Constant) -> None:
    constant.vlaues = None
"""


def test_misspelt_and_mistyped_fields_of_a_graph_are_type_errors(tmp_path):
    faulty = tmp_path / "faulty.py"
    faulty.write_text(FAULTS)
    command = [sys.executable, "-m", "mypy", "--cache-dir", str(tmp_path / "cache"), str(faulty)]
    try:
        done = subprocess.run(
            command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=30
        )
    except subprocess.TimeoutExpired:
        pytest.skip("the type checker takes too long here")
    lines = [line.split(":")[1] for line in done.stdout.splitlines() if " error: " in line]
    assert lines == ["5", "8", "11", "14"], done.stdout + done.stderr
