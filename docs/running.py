"""Runs what pages show, where the models of the repository are."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Self

MODELS = Path(__file__).parents[1] / "models"

COMMAND = (sys.executable, "-c", "from onnxcomp.cli import main; main()")


class Workplace:
    """A folder that goes away, with ``models`` in it, for all that one page runs.

    Args:
        page: What the page is called in messages.
    """

    def __init__(self, page: str) -> None:
        self.page = page
        self._folder = TemporaryDirectory()
        self.folder = Path(self._folder.name)

    def __enter__(self) -> Self:
        shutil.copytree(MODELS, self.folder / "models")
        return self

    def __exit__(self, *_: object) -> None:
        self._folder.cleanup()

    def console(self, block: str) -> str:
        """Run the commands of a block; return it with what each printed below it."""
        lines = []
        for command in commands_of(block):
            _, *arguments = command.split()
            lines += [f"$ {command}\n", self._run((*COMMAND, *arguments), command)]
        return "".join(lines)

    def python(self, code: str) -> None:
        """Run code as it stands; a warning is an error."""
        self._run((sys.executable, "-W", "error", "-c", code), code)

    def _run(self, command: tuple[str, ...], shown: str) -> str:
        done = subprocess.run(
            command,
            cwd=self.folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise RuntimeError(f"{self.page}: {shown!r} fails: {done.stdout}")
        return done.stdout


def commands_of(block: str) -> list[str]:
    """Return the commands of a block of a page, each in one line; others are refused."""
    lines = block.replace("\\\n", "").splitlines()
    if not all(line.startswith("$ onnxcomp ") for line in lines):
        raise ValueError(f"a console block has something else than '$ onnxcomp ...': {block!r}")
    return [line.removeprefix("$ ") for line in lines]
