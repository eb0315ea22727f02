"""What the README shows, run as it stands, on fewer samples; `compress` from a quick preset."""

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest

from onnxcomp.cli import main
from onnxcomp.pipeline import available_passes, parse_recipe

ROOT = Path(__file__).parents[1]
FEW = 15
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(ROOT / "models", tmp_path / "models")
    # As many samples as show that the commands work: the README's numbers are the benches'.
    data = tmp_path / "models" / "fashion_calibration.npz"
    with np.load(data) as samples:
        few = {name: each[:FEW] for name, each in samples.items()}
    np.savez(data, **few)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_python(workplace: Path) -> None:
    code = "\n".join(blocks("python"))
    assert code
    subprocess.run([sys.executable, "-W", "error", "-c", code], cwd=workplace, check=True)
    assert (workplace / "small.onnx").exists()


def test_commands(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commands = re.findall(r"^\$ onnxcomp (.*)$", "".join(blocks("console")), re.MULTILINE)
    assert commands
    for command in dict.fromkeys(commands):
        name = command.split()[0]
        # What `compress` finds in ten minutes is not for a test.
        quick = ["--target", "server"] if name == "compress" else []
        monkeypatch.setattr(sys, "argv", ["onnxcomp", *command.split(), *quick])
        with pytest.raises(SystemExit) as left:
            main()
        assert not left.value.code, command
    assert (workplace / "plain.onnx").exists()


def test_recipes() -> None:
    recipes = blocks("toml")
    assert recipes
    for recipe in recipes:
        assert parse_recipe(tomllib.loads(recipe))


def test_every_pass_is_in_the_table() -> None:
    for name in available_passes():
        assert f"| `{name}` |" in README


def test_links_lead_to_files() -> None:
    links = re.findall(r"\]\((?!http)([^)#]+)\)", README)
    assert links
    for link in links:
        assert (ROOT / link).exists(), link
